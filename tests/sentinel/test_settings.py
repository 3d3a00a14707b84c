"""Django's settings as an installation behind TLS sees them, and what it serves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from django.test import Client

from core.conf.settings import PROJECT


def told(**environ: str) -> Any:
    code = (
        "import json, django; from django.conf import settings as s;"
        "print(json.dumps([s.CSRF_TRUSTED_ORIGINS, s.SECURE_HSTS_SECONDS, s.SESSION_COOKIE_SECURE, s.ALLOWED_HOSTS]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=PROJECT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "sentinel.settings", **environ},
    )
    return json.loads(done.stdout)


def test_an_https_address_means_secure_cookies_hsts_and_a_trusted_origin() -> None:
    origins, hsts, secure, hosts = told(SENTINEL_PUBLIC_URL="https://mcp.example.com:8443/gate")
    assert origins == ["https://mcp.example.com:8443"]
    assert hsts > 0 and secure is True
    assert hosts == ["localhost", "127.0.0.1", "[::1]", "mcp.example.com"]


def test_without_one_nothing_of_it() -> None:
    assert told(SENTINEL_PUBLIC_URL="")[:3] == [[], 0, False]


def test_static_files_are_served_from_where_they_lie() -> None:
    answer = Client().get("/static/sentinel/base.css")
    assert answer.status_code == 200
    assert answer.content == (PROJECT / "static" / "sentinel" / "base.css").read_bytes()
    assert "access-control-allow-origin" not in answer.headers
    assert (
        Client().get("/static/sentinel/base.css", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    )


def test_each_alias_is_the_same_database_in_tests() -> None:
    from django.db import connections

    assert connections["owner"].settings_dict["TEST"]["MIRROR"] == "default"
