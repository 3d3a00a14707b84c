"""However a call ends, its memory is free at once: nothing of it waits for the garbage collector (docs/adr/0003)."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import free_port
from tests.support.gateway import Gateway, Key
from tests.support.upstream import (
    Behaviour,
    FakeUpstream,
    broken_chunking,
    cut_short,
    hang,
    huge,
    raw,
    redirect,
    sse,
    status,
)
from tests.support.wire import Client, send

pytestmark = pytest.mark.timeout(300)
COLLECTOR = Path(__file__).parents[1] / "support" / "garbage"
CALLS = 5
BIG = {"text": "x" * 30_000}


class Worker:
    """The one worker of a gateway, which tells what it leaves behind."""

    def __init__(self, gateway: Gateway, fake: FakeUpstream, key: Key, told: Path) -> None:
        self.gateway, self.fake, self.key, self.told = gateway, fake, key, told
        self.told.touch()
        assert gateway.process is not None
        children = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children").read_text().split()
        (self.pid,) = (
            int(child)
            for child in children
            if b" worker " in Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ")
        )

    def tell(self, number: int) -> dict[str, int]:
        lines = len(self.told.read_text().splitlines())
        os.kill(self.pid, number)
        until = time.monotonic() + 20
        while len(found := self.told.read_text().splitlines()) == lines:
            assert time.monotonic() < until
            time.sleep(0.05)
        what: dict[str, int] = json.loads(found[-1])
        return what

    def left_by(self, work: Callable[[], object]) -> dict[str, int]:
        """What the calls of `work` leave to the collector, each time: what runs beside them may leave something once."""
        work()  # what is done once
        found: dict[str, int] = {}
        for _ in range(2):
            self.settle()
            self.tell(signal.SIGUSR1)
            for _ in range(CALLS):
                work()
            self.settle()
            found = self.tell(signal.SIGUSR2)
            if not found:
                break
        return found

    def settle(self) -> None:
        time.sleep(0.3)
        self.client().call("get_customer")  # the loop has been round, and holds the last call no more

    def client(self, upstream: str = "fake") -> Client:
        return self.gateway.client(self.key, upstream)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    told = tmp_path_factory.mktemp("garbage") / "told"
    settings = {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(COLLECTOR), os.environ.get("PYTHONPATH", "")))),
        "SENTINEL_TEST_GARBAGE": str(told),
        "SENTINEL_FIRST_BYTE_TIMEOUT": "0.3",
        "SENTINEL_MAX_ANSWER_BYTES": "1MiB",
        "SENTINEL_CATALOGUE_REFRESH": "0",
    }
    with FakeUpstream() as fake, Gateway(workers=1, **settings) as gateway:
        gateway.add_upstream("fake", fake.url)
        gateway.add_upstream("away", f"http://127.0.0.1:{free_port()}/mcp")
        key = gateway.create_key("admin", "admin")
        time.sleep(1.0)
        yield Worker(gateway, fake, key, told)


FAILURES = {
    "answered": None,
    "refused by the upstream": status(500, b"boom"),
    "its own credential refused": status(401),
    "cut short": cut_short(),
    "broken chunking": broken_chunking(),
    "not HTTP": raw(b"nonsense\r\n\r\n"),
    "redirected": redirect("http://127.0.0.1:1/"),
    "not JSON": status(200, b"<p>hello", "text/html"),
    "too large": huge(2_000_000, content_type="text/event-stream"),
    "stream": sse([], answer={"content": []}),
    "stream without an answer": sse([{"jsonrpc": "2.0", "method": "notifications/message"}]),
    "too slow": hang(),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_call_leaves_nothing(worker: Worker, name: str) -> None:
    behaviour: Behaviour | None = FAILURES[name]
    worker.fake.forget()
    if behaviour is not None:
        worker.fake.script(behaviour, name="public.echo")

    def work() -> Any:
        return worker.client().call("public.echo", BIG)

    assert worker.left_by(work) == {}


def test_an_upstream_that_is_not_there_leaves_nothing(worker: Worker) -> None:
    assert worker.left_by(lambda: worker.client("away").call("public.echo", BIG)) == {}


def test_a_refusal_leaves_nothing(worker: Worker) -> None:
    def work() -> None:
        assert worker.gateway.client(None).call("public.echo", BIG).status == 401
        assert worker.client("nowhere").call("public.echo", BIG).status == 404
        client = worker.client()
        assert send(client.address, b'{"jsonrpc":"2.0","id":1,"id":2}', client.headers()).status == 400

    assert worker.left_by(work) == {}
