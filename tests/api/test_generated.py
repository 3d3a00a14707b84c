"""A client that an external generator makes of the committed description, against a running gateway."""

from __future__ import annotations

import json
import os
import subprocess
import time

import pytest

from tests.api.client import DESCRIPTION
from tests.support import clients
from tests.support.fixtures import Stage


@pytest.mark.timeout(300)
def test_a_generated_client_does_all_kinds_of_things(stage: Stage) -> None:
    stage.fake.forget()
    caller = stage.client().initialize()
    for _ in range(5):
        caller.call("list_customers")
    key = stage.gateway.create_key("of-the-generated-client", administrative="administrator")
    time.sleep(1.0)  # the events are stored
    python, folder = clients.generated(DESCRIPTION)
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(
        [python, clients.SCRIPTS / "generated.py"],
        input=json.dumps({"url": stage.gateway.url, "key": key.key}),
        env=environment | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["events"] >= 7 and told["key"]
