"""What a sealed event id stands for, and the one line of an event that carries it."""

from __future__ import annotations

import asyncio
import re
import uuid
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.redaction.sanitizer import Payload
from proxy import outcomes
from proxy.call import State
from proxy.follow_ups.place import Place
from proxy.follow_ups.resumption import MOST_PRESENTED, Ids
from proxy.http.sessions import SessionSealer
from proxy.mcp.replies import same_id, spelled
from proxy.mcp.sse import SseReader, with_id
from tests.proxy.fake_transport import made as begun
from tests.proxy.fake_transport import request

SEALER = SessionSealer("x" * 32)
OWN = {"key_id": "k", "upstream": "u", "purpose": "event/mcp/s"}
rpc_ids = st.one_of(
    st.text(max_size=120),
    st.sampled_from(["x" * 900, "7", 7, 7.0, True]),
    st.integers(-(2**63), 2**64),
    st.floats(),
    st.none(),
)


@given(st.binary(min_size=1, max_size=512), rpc_ids, st.sampled_from(["full", "request", "digest", "none"]))
def test_it_comes_back_as_it_was_and_fits_a_header(event_id: bytes, rpc_id: object, level: str) -> None:
    for place in (Place(event_id, uuid.uuid4(), spelled(rpc_id), level), Place(event_id)):
        sealed = SEALER.wrap(place.packed(), **OWN)
        assert len(sealed) <= MOST_PRESENTED and sealed.isascii()
        value = SEALER.open(sealed, **OWN)
        assert value is not None and Place.unpacked(value) == place
        for other in ({"key_id": "k2"}, {"upstream": "u2"}, {"purpose": "event/mcp/s2"}, {"purpose": "session"}):
            assert SEALER.open(sealed, **(OWN | other)) is None


@given(rpc_ids, rpc_ids)
def test_an_answer_is_known_by_what_clients_take_for_its_id(one: object, other: object) -> None:
    assert (spelled(one) == spelled(other) != b"") == same_id(one, other)
    assert spelled(one) == b"" or same_id(one, one)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("lines", [[b"id: 1"], [b"id:1", b"id: 2"], [b"id"], [b"idx: 3", b"id: 1", b": id: 4"]])
def test_only_the_id_is_another(end: bytes, lines: list[bytes]) -> None:
    raw = end.join([b"event: message", *lines, b"retry: 5", b"data: id: 9", b"data: {}", b"", b""])
    (event,) = SseReader().feed(raw)
    kept = [line for line in lines if line != b"id" and line[:3] != b"id:"]
    for new in (b"sealed.x", b"", None):
        changed = with_id(event, new)
        (again,) = SseReader().feed(changed.raw)
        assert (again.event, again.data, again.id) == (event.event, event.data, new)
        rest = [
            line
            for line in changed.raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
            if line[:3] != b"id:"
        ]
        assert rest == [b"event: message", *kept, b"retry: 5", b"data: id: 9", b"data: {}", b"", b""]
        assert set(re.findall(rb"\r\n|\r|\n", changed.raw)) == {end}


class Slow:
    """A logger whose records become durable when the test says so."""

    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.durable = asyncio.get_running_loop().create_future()

    def _say(self, what: str) -> Any:
        def say(*_: Any, **more: Any) -> Any:
            self.said.append((what, more))
            return asyncio.shield(self.durable)

        return say

    def __getattr__(self, name: str) -> Any:
        return self._say(name)


def made(monkeypatch: pytest.MonkeyPatch, **more: Any) -> tuple[Ids, Any, Slow]:
    monkeypatch.setattr(outcomes, "complete", lambda *_, **__: None)
    logger = Slow()

    async def payload(data: bytes, value: Any, **_: Any) -> Any:
        return Payload(data.decode(), len(data), "digest")

    gateway: Any = SimpleNamespace(
        logger=logger, sealer=SEALER, config=SimpleNamespace(resume_wait=300.0), payload=payload
    )
    known = {"message": None, "event": object(), "key_id": "k", "slug": "u"} | more
    call = begun(request("tools/call", {"name": "x"}), state=State.STREAMING, **known)
    return Ids(gateway, call, SimpleNamespace(header=lambda _: b"")), call, logger  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_an_answer_waits_for_its_record(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(b"7", uuid.uuid4(), spelled(5))
    ids, call, logger = made(monkeypatch, resumes=place, details={"resumed": {}, "tool_error": True, "other": 1})
    assert ids.brings(5) and ids.brings("5") and not ids.brings(6) and not ids.brings(None)
    task = asyncio.ensure_future(ids.record(b'{"id":5}', {"id": 5}))
    await asyncio.sleep(0.05)
    assert not task.done() and not call.answered
    assert [what for what, _ in logger.said] == ["resumed", "outcome"]
    assert logger.said[0][1]["response"].json == '{"id":5}' and logger.said[0][1]["details"] == {"tool_error": True}
    logger.durable.set_result(None)
    await task
    assert call.answered and call.details["resumed"] == {"answered": True} and not ids.brings(5)


@pytest.mark.anyio
async def test_an_id_waits_until_the_journal_says_that_the_call_can_be_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    message = SimpleNamespace(kind="request", method="tools/call", id=5)
    ids, call, logger = made(monkeypatch, message=message)
    (event,) = SseReader().feed(b"id: 7\ndata:\n\n")
    out = ids.outgoing(event)
    assert ids.due and out.id is not None
    value = SEALER.open(out.id.decode(), key_id="k", upstream="u", purpose="event/mcp/")
    assert value is not None and Place.unpacked(value) == Place(b"7", call.id, spelled(5))
    task = asyncio.ensure_future(ids.promise())
    await asyncio.sleep(0.05)
    assert not task.done() and not call.resumable
    assert [(what, more["ended"]) for what, more in logger.said] == [("resumable", False)]
    logger.durable.set_result(None)
    await task
    assert call.resumable and not ids.due
    ids.outgoing(event)
    assert not ids.due, "once is enough"


@pytest.mark.anyio
async def test_ids_of_the_modern_era_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    (event,) = SseReader().feed(b"id: 7\ndata: {}\n\n")
    modern = SimpleNamespace(modern=True)
    ids, _, _ = made(monkeypatch, era=modern)
    assert ids.outgoing(event) is event
