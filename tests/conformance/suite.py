"""Runs the pinned conformance suite against an address and reads what it says."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.support import clients

REVISIONS = {"2025-11-25": 30, "2026-07-28": 37}
PRELOAD = Path(__file__).resolve().parent / "preload.mjs"
LINE = re.compile(r"^(?P<mark>[✓✗]) (?P<name>[\w/.-]+): (?P<passed>\d+) passed, (?P<failed>\d+) failed$", re.M)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario and its checks."""

    name: str
    passed: int
    failed: int
    scored: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the suite said about one revision."""

    revision: str
    scenarios: tuple[Scenario, ...]
    exit_code: int
    output: str

    @property
    def scored(self) -> list[Scenario]:
        """The scenarios that count."""
        return [scenario for scenario in self.scenarios if scenario.scored]

    @property
    def good(self) -> int:
        """How many of them passed; a scenario without a single passed check is not one."""
        return sum(1 for scenario in self.scored if scenario.passed and not scenario.failed)

    @property
    def complete(self) -> bool:
        """Whether every scored scenario ran and passed, by the suite's own verdict too."""
        return self.exit_code == 0 and self.good == len(self.scored) == REVISIONS[self.revision]


def run(url: str, revision: str, key: str = "") -> Outcome:
    """Run one revision's scenarios against an address, with an API key."""
    folder = clients.node_modules()
    package = folder / "node_modules" / "@modelcontextprotocol" / "conformance"
    wanted = set(yaml.safe_load((package / "requirements" / f"{revision}.yaml").read_text())["server"])
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    with tempfile.TemporaryDirectory(prefix="conformance-") as results:
        done = subprocess.run(
            [
                *(str(clients.node()), "--import", str(PRELOAD), str(package / "dist" / "index.js"), "server"),
                *("--url", url, "--requirements", revision, "--timeout", "20000", "-o", results),
            ],
            env=environment | {"CONFORMANCE_KEY": key},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    output = done.stdout + done.stderr
    summary = output.rpartition("=== SUMMARY ===")[2]
    scenarios = tuple(
        Scenario(m["name"], int(m["passed"]), int(m["failed"]), m["name"] in wanted) for m in LINE.finditer(summary)
    )
    return Outcome(revision, scenarios, done.returncode, output)
