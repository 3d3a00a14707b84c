"""Streams on which nothing happens for far longer than an upstream may be silent within an answer.

The times are a fifteenth to a hundredth of the defaults (15 s between comments, 300 s of silence, a stream of ten minutes):
a comment each second, 3 s of silence, and streams of more than 7 s.
"""

from __future__ import annotations

import threading
import time

import pytest

from tests.e2e.conftest import Pipes
from tests.e2e.test_streams import memory
from tests.support.upstream import FakeUpstream, sse
from tests.support.wire import Stream

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("pipes")]

SSE = {"Accept": "text/event-stream"}
NOTE = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "late news"}}
QUIET = 7.5


def comments(received: bytes) -> int:
    return received.count(b"\n\n: ") + received.startswith(b": ")


def test_a_listening_stream_is_kept_open_however_long_it_is_silent(pipes: Pipes, silent: FakeUpstream) -> None:
    begun = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "begun"}}
    silent.script(sse([begun, NOTE], pause=QUIET, hold=60), verb="GET")
    since = pipes.gateway.now()
    client = pipes.client("silent").initialize()
    with client.ask("", verb="GET", headers=SSE, stream=True) as stream:
        stream.until(b"begun")
        stream.until(b"late news", timeout=QUIET + 15)
        quiet = stream.received.partition(b"begun")[2].partition(b"late news")[0]
        assert 4 <= comments(quiet) <= 12, stream.received
        assert [request.gone.is_set() for request in silent.requests if request.verb == "GET"] == [False]
    events = [e for e in pipes.gateway.events(since, upstream="silent") if e["details"].get("stream")]
    assert [event["outcome"] for event in events] == ["cancelled"], events  # and that was the client's doing


def test_a_silent_subscription_of_the_modern_era(pipes: Pipes) -> None:
    client = pipes.client("http", era="modern")
    told: list[bytes] = []
    params = {"notifications": {"toolsListChanged": True}}
    with client.ask("subscriptions/listen", params, rpc_id="sub", stream=True) as stream:
        stream.until(b"notifications/subscriptions/acknowledged")
        quiet = threading.Timer(QUIET, lambda: client.call("test_trigger_tool_change", {}))
        quiet.start()
        told.append(stream.until(b"list_changed", timeout=QUIET + 15))
        quiet.join()
    assert comments(told[0]) >= 3, told


def test_the_stream_of_a_silent_command(pipes: Pipes) -> None:
    client = pipes.client("pipe").initialize()
    with client.ask("", verb="GET", headers=SSE, stream=True) as stream:
        time.sleep(QUIET)
        assert client.call("x", {"changed": True}).status == 200
        stream.until(b"list_changed", timeout=15)
    assert comments(stream.received) >= 4, stream.received


def test_silence_within_an_answer_is_bounded_all_the_same(pipes: Pipes, silent: FakeUpstream) -> None:
    silent.script(sse([NOTE], hold=60), method="tools/call")
    since = pipes.gateway.now()
    begun = time.monotonic()
    answer = pipes.client("silent", era="modern").call("public.echo", {})
    assert 2.5 < time.monotonic() - begun < 20
    assert answer.error["code"] == 504
    assert pipes.gateway.event(since, method="tools/call")["outcome"] == "upstream_error"


def test_many_open_streams_cost_little_and_hold_up_no_call(pipes: Pipes, silent: FakeUpstream) -> None:
    """A small form of `python -m bench.streams`."""
    begun = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "begun"}}
    silent.script(sse([begun], hold=600), verb="GET")
    client = pipes.client("silent").initialize()

    def round_of_calls() -> list[float]:
        return sorted(client.call("public.echo", {}).elapsed for _ in range(100))

    def opened(number: int) -> list[Stream]:
        streams = []
        for _ in range(number):
            stream = client.ask("", verb="GET", headers=SSE, stream=True)
            stream.until(b"begun", timeout=30)
            streams.append(stream)
        return streams

    for stream in opened(20):  # whatever is loaded once is loaded
        stream.close()
    alone = round_of_calls()
    before = memory(pipes)
    streams = opened(400)
    try:
        each = (memory(pipes) - before) / len(streams)
        beside = round_of_calls()
    finally:
        for stream in streams:
            stream.close()
    assert each < 100 * 1024, each
    assert beside[50] < alone[50] * 5 + 0.1, (alone[50], beside[50])  # others use this machine too
