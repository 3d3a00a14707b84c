"""The short form of `make chaos` that the suite runs."""

from __future__ import annotations

import asyncio

import pytest

from tests.chaos import scenarios, traced
from tests.chaos.checker import join
from tests.chaos.histories import Call


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["kills", "full", "backup", "clock", "trace"])
def test_chaos(name: str) -> None:
    made = {
        "kills": lambda: scenarios.kills(5),
        "full": lambda: scenarios.full_disk(2.0),
        "backup": lambda: scenarios.backup(1.5),
        "clock": lambda: scenarios.clock(6.0),
        "trace": lambda: traced.sync_before_send(15),
    }[name]
    result = asyncio.run(made())
    assert result.ok, (result.figures, result.problems)


def event(marker: str, **values: object) -> dict[str, object]:
    known = {
        "id": marker,
        "rpc_id": f'"{marker}"',
        "outcome": "allowed",
        "reason": "",
        "status_code": 200,
        "count": 1,
        "details": {},
    }
    return {**known, "writer": "w.1", "seq": int(marker[1:]), **values}


def test_the_checker_sees_what_must_never_be() -> None:
    calls = [Call(f"m{n}", 0.0, 1.0, 200, True) for n in range(1, 5)] + [Call("m5", 0.0, 1.0, 0)]
    events = [event("m1"), event("m2"), event("m2", seq=99), event("m3", outcome="denied", status_code=403)]
    verdict = join(calls, {"m1": 1, "m2": 1, "m3": 1, "m4": 1, "m5": 1}, events, True)
    assert verdict.doubled == ["m2"]
    assert [text.split()[0] for text in verdict.other_outcome] == ["m3"]
    assert [text.split()[0] for text in verdict.answered_unaudited] == ["m4"]
    assert verdict.executed_unrecorded == ["m4", "m5"] and not verdict.ok
    assert join(calls[:1], {"m1": 1}, events[:1], True).ok
    assert not join(calls[:1], {"m1": 1}, events[:1], False).ok


def test_the_checker_excuses_only_what_the_log_tells() -> None:
    def refused(number: int, ended_at: float) -> Call:
        return Call(f"m{number}", 0.0, 1.0, 503, reason="policy_stale", ended_at=ended_at)

    last = "1970-01-01T00:01:40+00:00"
    count = event("m1", id="c", outcome="denied", reason="policy_stale", status_code=503, last_ts=last)
    gap = event("m8", rpc_id="", outcome="unrecorded", details={"gap": {"counted": "c"}}, status_code=0, last_ts=None)
    calls = [refused(1, 100.0), refused(2, 100.9), refused(3, 102.0)]
    verdict = join(calls, {}, [count, {**gap, "id": "g"}], True)
    assert verdict.told_as_gap == 1 and len(verdict.answered_unaudited) == 1
    assert len(join(calls, {}, [count], True).answered_unaudited) == 2


def test_the_trace_sees_a_send_without_a_sync() -> None:
    sync, send = "7 1.0 fdatasync(9) = 0\n", '7 1.1 sendto(5, "POST /mcp HTTP/1.1", 90) = 90\n'
    answer = r'7 1.2 sendto(4, "{\"id\":1,\"result\":{}}", 20) = 20' + "\n"
    assert traced.order((sync + send + sync + answer) * 2) == (4, 2, 2, [])
    assert len(traced.order((sync + send + sync + answer) + (send + sync + answer))[3]) == 1
    assert len(traced.order((sync + send + answer) * 2)[3]) == 2
