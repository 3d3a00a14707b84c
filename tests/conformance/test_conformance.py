"""Both revisions of the official suite, through `serve` with a key and every control on."""

from __future__ import annotations

import pytest

from tests.conformance import suite
from tests.support.fixtures import Everything, Stage

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("stage")]


@pytest.mark.parametrize("revision", sorted(suite.REVISIONS))
def test_every_scored_scenario_passes(stage: Stage, everything: Everything, revision: str) -> None:
    url = f"http://localhost:{stage.gateway.port}/mcp/everything"
    outcome = suite.run(url, revision, stage.keys["admin"].key)
    failed = [scenario.name for scenario in outcome.scored if scenario.failed or not scenario.passed]
    assert outcome.complete, (failed, outcome.output[-3000:])


def test_without_a_key_nothing_counts_as_passed(stage: Stage, everything: Everything) -> None:
    outcome = suite.run(f"http://localhost:{stage.gateway.port}/mcp/everything", "2025-11-25")
    assert not outcome.complete
