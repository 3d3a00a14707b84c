"""`audit tail -f`: events are told as they are stored, each once."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.fixtures import Stage
from tests.support.gateway import ROOT

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("stage")]


def test_what_comes_is_told_once(stage: Stage) -> None:
    client = stage.client()
    line = [sys.executable, "manage.py", "audit", "tail", "-f", "-n", "1", "--json"]
    before = stage.gateway.now()
    client.call("list_customers")
    (first,) = stage.gateway.events(before, 1)
    with subprocess.Popen(line, cwd=ROOT, env=stage.gateway.environment, stdout=subprocess.PIPE, text=True) as tail:
        assert tail.stdout is not None
        assert json.loads(tail.stdout.readline()) == first
        for wanted in ("get_customer", "list_customers", "get_customer"):
            since = stage.gateway.now()
            client.call(wanted)
            told = json.loads(tail.stdout.readline())
            assert (told["tool_name"], told["id"]) == (wanted, stage.gateway.event(since)["id"])
        tail.terminate()
        assert not tail.stdout.read()
