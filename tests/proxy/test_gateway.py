"""The worker's state: which streams are open, what a stop ends and when, what runs beside requests."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from proxy import gateway as module
from proxy.call import Call
from proxy.gateway import Gateway, current, install
from tests.proxy.fake_transport import EVENTS, Scene, Stream, call, event, made, never, request

PROGRESS = event(request("notifications/progress", {"progressToken": 1, "progress": 1}, rpc_id=None))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


async def until(what: Any) -> None:
    async with asyncio.timeout(5):
        while not what():
            await asyncio.sleep(0.005)


def test_streams_are_counted_by_their_key(scene: Scene) -> None:
    gateway, found = scene.gateway, [made(call(), key_id=key) for key in ("a", "a", "b")]
    for each in found:
        gateway.stream_opened(each)
    assert (gateway.stream_count, gateway.streams_of("a"), gateway.streams_of("b")) == (3, 2, 1)
    for each in (*found, *found):  # twice is once
        gateway.stream_closed(each)
    assert (gateway.stream_count, gateway.streams_of("a"), gateway.streams) == (0, 0, {})


def test_only_what_was_let_in_before_a_change_is_judged_again_at_once(scene: Scene) -> None:
    older = made(call())
    scene.gateway.changed_ns = time.perf_counter_ns()
    scene.gateway.sent(made(call()))
    assert not scene.gateway.changed.is_set()
    scene.gateway.sent(older)
    assert scene.gateway.changed.is_set()


async def test_a_stop_ends_listeners_at_once_and_gives_calls_their_grace(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LAST_WORD_SECONDS", scene.config.graceful_timeout - 0.1)
    await scene.gateway.start()
    scene.upstream.say(Stream(PROGRESS, never), Stream(PROGRESS, never))
    listens = asyncio.ensure_future(scene.ask(verb="GET", headers=[(b"accept", EVENTS)]))
    await until(lambda: scene.gateway.stream_count == 1)
    waits = asyncio.ensure_future(scene.ask(call()))
    await until(lambda: scene.gateway.stream_count == 2)
    began = time.monotonic()
    scene.gateway.begin_stop()
    seen = await listens
    assert seen.said == ("interrupted", "server_stopping", 200) and not waits.done()
    seen = await waits
    assert time.monotonic() - began > 0.09 and seen.said == ("interrupted", "server_stopping", 503)
    assert seen.messages[-1]["error"]["data"]["reason"] == "server_stopping"
    await scene.gateway.stop()


async def test_a_stop_waits_for_outcomes_and_takes_everything_down(scene: Scene) -> None:
    gateway = scene.gateway
    await gateway.start()
    tended: list[str] = []

    async def tend() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            tended.append("ended")

    gateway.tend(tend())
    scene.upstream.say(never)
    waits = asyncio.ensure_future(scene.ask(call()))
    await until(lambda: scene.upstream.asked)
    await gateway.stop()
    assert not gateway.calls and scene.order[-1] in ("outcome", "body")
    assert (await waits).said == ("interrupted", "server_stopping", 503)
    await asyncio.sleep(0)
    assert tended == ["ended"] and gateway.stopping


async def test_what_runs_beside_a_request_is_held_until_it_is_done(scene: Scene) -> None:
    done = asyncio.Event()
    scene.gateway.spawn(done.wait())
    await asyncio.sleep(0)
    assert len(scene.gateway._background) == 1
    done.set()
    await until(lambda: not scene.gateway._background)


async def test_every_end_is_told_to_those_who_count(scene: Scene) -> None:
    told: list[Call] = []
    scene.gateway.observers.append(told.append)
    scene.gateway.observers.append(scene.gateway.standing.observe_call)
    scene.upstream.say(never)
    await scene.ask(call(), meanwhile=lambda found: found.exchange.end("client_gone"))
    await scene.ask(call(), key="")
    assert [each.reason for each in told] == ["client_gone", "missing_credential"]


def test_a_process_has_one_or_says_that_it_has_none(scene: Scene) -> None:
    with pytest.raises(RuntimeError):
        current()
    install(scene.gateway)
    assert isinstance(current(), Gateway)
    install(None)
    with pytest.raises(RuntimeError):
        current()
