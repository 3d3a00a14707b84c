"""What calls see of an upstream is written when it changes, by whoever has seen more lately."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from proxy.upstreams.health import HealthChange, UpstreamHealth
from proxy.upstreams.specs import UpstreamSpec, Way

SPEC = UpstreamSpec("crm", Way("stdio"), id=5)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    now = SimpleNamespace(at=100.0)
    monkeypatch.setattr("proxy.upstreams.health.time.time", lambda: now.at)
    return now


def saw(standing: UpstreamHealth, method: str = "tools/call", reason: str = "", *, kind: str = "request") -> None:
    outcome = "upstream_error" if reason else "allowed"
    message = SimpleNamespace(method=method, kind=kind)
    standing.observe_call(
        SimpleNamespace(intended=True, spec=SPEC, slug="crm", message=message, outcome=outcome, reason=reason)  # type: ignore[arg-type]
    )


def test_failing_and_well_again(clock: Any) -> None:
    standing = UpstreamHealth()
    saw(standing)
    assert standing.changes({"crm": SPEC}) == []
    clock.at = 101.0
    saw(standing, reason="upstream_broken")
    assert standing.changes({"crm": SPEC}) == [HealthChange(5, False, 101.0, "tools/call", "upstream_broken")]
    told = replace(SPEC, failing="tools/call", calls_at=101.0)
    assert standing.changes({"crm": told}) == []
    clock.at = 102.0
    saw(standing, "tools/list")  # runs nothing
    assert standing.changes({"crm": told}) == []
    saw(standing)
    assert standing.changes({"crm": told}) == [HealthChange(5, True, 102.0)]


def test_another_worker_knows_better(clock: Any) -> None:
    mine, other = UpstreamHealth(), UpstreamHealth()
    saw(mine, reason="upstream_unreachable")
    clock.at = 105.0
    saw(other)
    told = replace(SPEC, failing="tools/call", calls_at=100.0)
    assert other.changes({"crm": told}) == [HealthChange(5, True, 105.0)]
    well = replace(SPEC, calls_at=105.0)
    assert mine.changes({"crm": well}) == []  # what it has seen is older
    clock.at = 106.0
    saw(mine, reason="upstream_unreachable")
    assert [change.ok for change in mine.changes({"crm": well})] == [False]


@pytest.mark.parametrize(
    "reason", ["upstream_timeout", "upstream_busy", "upstream_refused", "upstream_too_large", "cancelled"]
)
def test_what_is_the_calls_own_matter_says_nothing(clock: Any, reason: str) -> None:
    standing = UpstreamHealth()
    saw(standing, reason=reason)
    saw(standing, reason="upstream_broken", kind="notification")
    assert standing.changes({"crm": SPEC}) == []


def test_an_upstream_that_is_gone_is_forgotten(clock: Any) -> None:
    standing = UpstreamHealth()
    saw(standing, reason="upstream_broken")
    assert standing.changes({}) == [] and standing.changes({"crm": SPEC}) == []
