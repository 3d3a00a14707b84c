"""What is open is minded: judged again when something changes, kept alive, and ended when it may not go on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy import watch as module
from proxy.mcp.sse import KEEP_ALIVE
from proxy.watch import Watch, judge_again
from tests.proxy.fake_transport import EVENTS, POLICY, Scene, Seen, Stream, call, event, never, request

PROGRESS = event(request("notifications/progress", {"progressToken": 1, "progress": 1}, rpc_id=None))


async def test_one_failure_does_not_end_the_watch_over_streams(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "TICK", 0)
    watch: Any = Watch.__new__(Watch)
    looked = 0

    def look() -> None:
        nonlocal looked
        looked += 1
        if looked == 1:
            raise RuntimeError("a defect")

    watch._look_at_streams = look
    task = asyncio.create_task(watch._tick())
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    assert looked > 1 and "could not be looked at" in caplog.text


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


async def open_stream(scene: Scene, change: Callable[[], Any] = lambda: None, **asked: Any) -> Seen:
    """A call whose stream is open and minded when something changes."""
    await scene.gateway.start()
    Watch(scene.gateway).start()
    scene.upstream.say(Stream(PROGRESS, never))
    try:
        return await scene.ask(asked.pop("data", call()), meanwhile=lambda _: change(), after="body", **asked)
    finally:
        await scene.gateway.stop()


def revoke(scene: Scene) -> None:
    scene.holder.keys = {name: replace(key, revoked_at=1.0) for name, key in scene.holder.keys.items()}
    scene.holder.swap()


async def test_a_key_that_is_revoked(scene: Scene) -> None:
    seen = await open_stream(scene, lambda: revoke(scene))
    assert seen.said == ("cancelled", "revoked_during_stream", 401)


async def test_a_role_that_may_no_longer(scene: Scene) -> None:
    seen = await open_stream(scene, lambda: scene.holder.swap(POLICY.replace('"@crm/get", ', "")))
    assert seen.said == ("cancelled", "denied_during_stream", 403)
    assert [each["stage"] for each in seen.decision["stages"]].count("authorize") == 1, (
        "judging leaves no trace in the event"
    )


@pytest.mark.parametrize("way", [True, False])
async def test_an_upstream_that_changes(scene: Scene, way: bool) -> None:
    moved = (
        replace(scene.spec, way=replace(scene.spec.way, url="http://other.test/"))
        if way
        else replace(scene.spec, enabled=False)
    )

    def change() -> None:
        scene.holder.extras["upstreams"] = {"crm": moved}
        scene.holder.swap()

    seen = await open_stream(scene, change, data=b"", verb="GET", headers=[(b"accept", EVENTS)])
    assert seen.said[:2] == ("cancelled", "upstream_changed")


async def test_a_defect_in_judging_ends_rather_than_lets_go_on(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*_: Any) -> str:
        raise RuntimeError("a defect")

    monkeypatch.setattr(module, "judge_again", defect)
    assert (await open_stream(scene, scene.holder.swap)).said[1] == "denied_during_stream"


async def test_what_is_judged_and_goes_on(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[str] = []

    async def change() -> None:
        (found,) = scene.gateway.calls
        scene.holder.age = scene.config.snapshot_max_age + 1  # not confirmed lately: refuses new calls, ends none
        judged.append(judge_again(scene.gateway, found))
        scene.holder.current, known = None, scene.holder.current
        judged.append(judge_again(scene.gateway, found))
        scene.holder.current, scene.holder.age = known, 0.0
        before = found.principal
        scene.holder.keys = {name: replace(key, name="another") for name, key in scene.holder.keys.items()}
        scene.holder.swap()
        judged.append(judge_again(scene.gateway, found))
        assert found.principal is not before, "it goes on as what its key is now"
        found.exchange.end("client_gone")

    seen = await open_stream(scene, change)
    assert judged == ["", "", ""] and seen.said[1] == "client_gone"


async def test_a_key_that_expires_while_it_waits(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK", 0.02)
    key = scene.holder.add("user", expires_at=time.time() + 0.3)
    seen = await open_stream(scene, key=key)
    assert seen.said == ("cancelled", "revoked_during_stream", 401)


@pytest.mark.parametrize(("interval", "sent"), [(0.05, True), (0.0, False)])
async def test_a_quiet_stream_is_kept_alive_unless_nobody_wants_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interval: float, sent: bool
) -> None:
    monkeypatch.setattr(module, "TICK", 0.01)
    scene = Scene(tmp_path, keepalive_interval=interval)

    async def wait() -> None:
        await asyncio.sleep(0.2)
        (found,) = scene.gateway.calls
        found.exchange.end("client_gone")

    kept = (await open_stream(scene, wait)).body.count(KEEP_ALIVE)
    assert kept >= 2 if sent else kept == 0


async def test_a_client_that_reads_too_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK", 0.01)
    scene = Scene(tmp_path, buffer_bytes=300_000, buffer_bytes_per_key=100_000)
    seen = await open_stream(scene, lambda: setattr(scene.upstream.given[0], "unread", 250_000))
    assert seen.said == ("limited", "too_much_waiting", 429)
