from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from core.conf.settings import PROJECT

# Not a real one; put together here so that no scanner takes this file for a leak.
TOKEN = "ghp_" + "".join("0123456789abcdefABCDEF"[(7 * n) % 22] for n in range(36))
BEGIN = f"""
import logging, warnings, structlog, django
django.setup()
from sentinel.observability import logs
logs.configure("INFO")
TOKEN = {TOKEN!r}
log = logging.getLogger("proxy.x")
"""


def logged(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + code],
        capture_output=True,
        text=True,
        check=True,
        cwd=PROJECT,
        env={**__import__("os").environ, "DJANGO_SETTINGS_MODULE": "sentinel.settings"},
    )
    assert done.stdout == ""
    return done.stderr


def lines(code: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in logged(code).splitlines()]


def test_one_json_object_a_line() -> None:
    first, second, third, fourth = lines(
        'log.warning("first\\nsecond \\x1b[31m %s", "part")\n'
        'structlog.get_logger("proxy.y").info("told", upstream="crm", count=3)\n'
        'warnings.warn("careful")\n'
        'log.info("%s", object)\n'
    )
    assert first["level"] == "warning" and first["logger"] == "proxy.x" and first["timestamp"]
    assert "\x1b" not in first["event"] and "\n" not in first["event"] and "part" in first["event"]
    assert second["upstream"] == "crm" and second["count"] == 3
    assert "careful" in third["event"]
    assert "object" in fourth["event"]


def test_secrets_are_redacted_in_messages_fields_and_tracebacks() -> None:
    output = logged(
        "try:\n    raise ValueError(f'upstream said {TOKEN}')\nexcept ValueError:\n    log.exception('failed with %s', TOKEN)\n"
        "structlog.get_logger('proxy').error('failed', detail={'header': f'Authorization: Bearer {TOKEN}'})\n"
    )
    assert TOKEN not in output
    assert output.count("REDACTED") >= 3


def test_lines_are_bounded_and_hostile_values_do_no_harm() -> None:
    output = logged(
        "log.error('x' * 1_000_000)\nlog.error('\\ud800 \\0 \\x9b')\nlog.error('a', extra={'b': float('nan')})\n"
    )
    assert len(output) < 20_000
    assert len(output.splitlines()) == 3
    assert "\0" not in output
