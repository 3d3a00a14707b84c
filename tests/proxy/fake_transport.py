"""An upstream behind the seam, a client before it and the gateway between them: no socket, no process, no database.

    scene = Scene(tmp_path)
    scene.upstream.say(plain({"content": []}))           what the upstream answers, one for each request it is sent
    seen = await scene.ask(call("get"))                  what the client saw, and the event that it left

`seen.order` says what came before what: the intent, the upstream's request, the outcome, the bytes of the answer.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import time
import uuid
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import orjson

from audit.journal.logger import AuditLogger
from audit.journal.tickets import AuditUnavailable
from core.conf.settings import Config
from core.ledger import Ledger
from policies.documents.reader import parse
from policies.engine.compiled import PolicySet
from policies.keys import credentials
from policies.keys.index import KeyRecord, KeyRing, KeySecretRecord
from policies.limiter.limiter import Limiter
from policies.snapshot.snapshot import Snapshot
from policies.specs import numbered
from proxy.call import Call, Record, State
from proxy.gateway import Gateway
from proxy.http.exchange import Exchange
from proxy.legacy.mailboxes import Mailboxes
from proxy.mcp import message
from proxy.mcp.sse import SseReader
from proxy.pipeline import handle
from proxy.upstreams.registry import UpstreamRegistry
from proxy.upstreams.specs import UpstreamSpec, Way
from proxy.upstreams.transports.base import BufferedResponse, UpstreamRequest, UpstreamResponse
from proxy.upstreams.transports.guard import Guard

JSON = b"application/json"
EVENTS = b"text/event-stream"
PEPPERS = {1: b"p" * 32}
POLICY = """
roles:
  user: {allow: ["@crm/get", "@crm/get_more"]}
  nobody: {allow: ["@other/*"]}
rules:
  - {name: not this one, effect: deny, roles: [user], tool: get_more, reason: "Ask the desk instead."}
"""


# -- the upstream


def body(result: Any = None, *, rpc_id: Any = 7, **more: Any) -> bytes:
    """A JSON-RPC response."""
    value = {"jsonrpc": "2.0", "id": rpc_id, **(more or {"result": {"content": []} if result is None else result})}
    return orjson.dumps(value)


class Plain(BufferedResponse):
    """An answer whose body is here, or fails to come."""

    def __init__(
        self, status: int, kind: bytes, data: bytes, headers: Any = (), fails: Exception | None = None
    ) -> None:
        super().__init__(status, [(b"content-type", kind), *headers] if kind else [*headers], data)
        self.fails, self.aborted = fails, 0

    async def read(self) -> bytes:
        if self.fails is not None:
            raise self.fails
        return await super().read()

    def abort(self) -> None:
        self.aborted += 1


def plain(result: Any = None, *, status: int = 200, kind: bytes = JSON, headers: Any = (), **more: Any) -> Plain:
    """A JSON answer; bytes go as they are."""
    return Plain(status, kind, result if isinstance(result, bytes) else body(result, **more), headers)


class Stream(UpstreamResponse):
    """An event stream: pieces that come, errors that are raised, and coroutine functions that are waited for."""

    def __init__(self, *pieces: Any, headers: Any = (), judged: bool = False) -> None:
        super().__init__(200, [(b"content-type", EVENTS), *headers])
        self.pieces, self.aborted, self.unread = list(pieces), 0, 0

    @property
    def waiting(self) -> int:
        return self.unread

    async def read(self) -> bytes:
        while self.pieces:
            piece = self.pieces.pop(0)
            if isinstance(piece, Exception):
                raise piece
            if callable(piece):
                found = piece()
                piece = await found if inspect.isawaitable(found) else found
            if piece:
                return piece
        return b""

    def abort(self) -> None:
        self.aborted += 1


def event(data: bytes, *, event_id: str = "", kind: str = "") -> bytes:
    """One event of a stream."""
    head = (f"id: {event_id}\n" if event_id else "") + (f"event: {kind}\n" if kind else "")
    return head.encode() + b"data: " + data + b"\n\n"


class FakeTransport:
    """Says what it was told to say, and keeps what it was asked."""

    def __init__(self, order: list[str]) -> None:
        self.order = order
        self.asked: list[UpstreamRequest] = []
        self.script: list[Any] = []
        self.given: list[Any] = []

    def say(self, *steps: Any) -> None:
        """A response, an exception, or a coroutine function that is given the request and gives one of them."""
        self.script += steps

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        self.order.append("upstream")
        self.asked.append(request)
        step = self.script.pop(0) if self.script else plain(status=202, kind=b"", result=b"")
        if callable(step):
            step = await step(request)
        if isinstance(step, BaseException):
            raise step
        self.given.append(step)
        return step

    async def close(self, grace: float = 0.0) -> None:
        self.order.append("closed")


# -- the log


class Ticket:
    """A record that is durable a turn of the loop later."""

    def __init__(self, order: list[str], what: str) -> None:
        self.order, self.what = order, what

    def __await__(self) -> Generator[Any, None, None]:
        yield from asyncio.sleep(0).__await__()
        self.order.append(self.what)

    def wait(self, timeout: float | None = None) -> None:
        raise AssertionError("nothing blocks the loop")


class Log(AuditLogger):
    """The real logger over a list; `fails` names the records that it does not take."""

    def __init__(self, order: list[str]) -> None:
        self.events: list[Any] = []
        super().__init__(self.events)
        self.order, self.fails = order, set[str]()

    def _take(self, what: str) -> Any:
        if what in self.fails:
            raise AuditUnavailable("the disk is full")
        return Ticket(self.order, what)

    def log_event(self, event: Any) -> Any:
        super().log_event(event)
        return self._take("event")

    def intent(self, event: Any) -> Any:
        return self._take("intent")

    def outcome(self, event: Any, final: bool = True) -> Any:
        ticket = self._take("outcome" if final else "answer")
        super().outcome(event, final)
        return ticket

    def resumable(self, event: Any, wait: float, *, ended: bool) -> Any:
        ticket = self._take("waits" if ended else "promise")
        super().resumable(event, wait, ended=ended)
        return ticket

    def resumed(self, *given: Any, **more: Any) -> Any:
        return self._take("brought" if "response" in more else "taken up")


# -- keys and policy


class Holder:
    """The snapshot of now, without a database."""

    def __init__(self, policy: str, upstreams: dict[str, UpstreamSpec]) -> None:
        self.extras: dict[str, Any] = {"upstreams": upstreams}
        self.keys: dict[str, KeyRecord] = {}
        self.age = 0.0
        self.policy = policy
        self.current: Snapshot | None = None
        self.subscribers: list[Callable[..., None]] = []

    def add(self, role: str, **more: Any) -> str:
        """A key of a role; gives what its holder presents."""
        public_id = credentials.new_public_id()
        presented = credentials.generate(public_id)
        parsed = credentials.parse(presented)
        assert parsed is not None
        secret = KeySecretRecord(1, 1, credentials.digest(PEPPERS[1], *parsed), None)
        self.keys[public_id] = KeyRecord(
            id=uuid.uuid4(), public_id=public_id, name="a key", role=role, secrets=(secret,), **more
        )
        self.swap()
        return presented

    def swap(self, policy: str = "") -> None:
        """Have keys and policy be as they are now."""
        self.policy = policy or self.policy
        compiled = PolicySet(numbered(parse(self.policy).spec))
        self.current = Snapshot(3, {}, KeyRing(self.keys, PEPPERS), compiled)
        for told in self.subscribers:
            told(None, self.current)

    def subscribe(self, told: Callable[..., None]) -> None:
        self.subscribers.append(told)

    def confirmed_age(self) -> float:
        return self.age


class Registry(UpstreamRegistry):
    """The real one, whose transports are one that is scripted."""

    def __init__(self, holder: Holder, config: Config, fake: FakeTransport) -> None:
        super().__init__(holder, config, hosted=False, ledger=Ledger(config.buffer_bytes, config.buffer_bytes_per_key))
        self.fake, self.changed = fake, list[str]()

    def transport(self, slug: str) -> Guard:
        if self.spec(slug) is None:
            return super().transport(slug)  # which says so
        return Guard(self.fake)

    def lists_changed(self, slug: str) -> None:
        self.changed.append(slug)


# -- the client


class Client:
    """One request, and what comes back; leaves, or stops reading, when it is told to."""

    def __init__(self, order: list[str], data: bytes, *, half: bool = False) -> None:
        self.order, self.left, self.broken = order, asyncio.Event(), False
        self.first: dict[str, Any] | None = {"type": "http.request", "body": data, "more_body": half}
        self.status, self.headers, self.body, self.ended = 0, list[tuple[bytes, bytes]](), b"", False

    async def receive(self) -> dict[str, Any]:
        if self.first is not None:
            first, self.first = self.first, None
            return first
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, said: Any) -> None:
        if self.broken:
            raise ConnectionResetError
        if said["type"] == "http.response.start":
            assert not self.status, "an answer begins once"
            self.order.append("head")
            self.status, self.headers = said["status"], said["headers"]
            return
        assert self.status and not self.ended, "a body stands between a head and its end"
        if said["body"]:
            self.order.append("body")
        self.body += said["body"]
        self.ended = not said["more_body"]


class Seen:
    """What became of one request: for its client, for the log, for the call."""

    def __init__(self, client: Client, calls: list[Call], events: list[Any], order: list[str]) -> None:
        self.status, self.body, self.ended, self.order = client.status, client.body, client.ended, order
        self.headers = dict(client.headers)
        self.call = calls[0] if calls else None
        self.events = [each.as_record() for each in events]
        mine = [each for each in self.events if calls and each["id"] == calls[0].id]
        assert len(calls) == len(mine) <= 1, "one event for each"
        self.event = mine[0] if mine else {}
        self.decision = _json(self.event.get("decision"))
        self.details = _json(self.event.get("details"))

    @property
    def said(self) -> tuple[Any, Any, Any]:
        """Outcome, reason and status of the event."""
        return self.event["outcome"], self.event["reason"], self.event["status_code"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def data(self) -> dict[str, Any]:
        """What the client is told beside the words of a refusal."""
        return self.json["error"]["data"]

    @property
    def messages(self) -> list[Any]:
        """The messages of a stream."""
        return [json.loads(each.message) for each in SseReader().feed(self.body) if each.message]


def _json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value or {}


def call(name: str = "get", /, *, rpc_id: Any = 7, **arguments: Any) -> bytes:
    """A `tools/call`."""
    return request("tools/call", {"name": name, "arguments": arguments}, rpc_id=rpc_id)


def request(method: str, params: Any = None, *, rpc_id: Any = 7) -> bytes:
    """Any other request, or a notification where its id is None."""
    value = {"jsonrpc": "2.0", "method": method}
    return orjson.dumps(
        value | ({"id": rpc_id} if rpc_id is not None else {}) | ({"params": params} if params is not None else {})
    )


class Scene:
    """A gateway with one upstream, `crm`, and one key of the role `user`."""

    def __init__(
        self, folder: Path, *, policy: str = POLICY, spec: dict[str, Any] | None = None, **config: Any
    ) -> None:
        self.order: list[str] = []
        self.upstream = FakeTransport(self.order)
        self.config = Config(var=folder, secret_key="s" * 32, **{"keepalive_interval": 0.05, **config})
        self.spec = UpstreamSpec("crm", Way("streamable-http", "http://crm.test/mcp"), id=5, **spec or {})
        self.holder = Holder(policy, {"crm": self.spec})
        self.key = self.holder.add("user")
        self.log = Log(self.order)
        self.gateway = Gateway(
            config=self.config,
            holder=self.holder,  # type: ignore[arg-type]
            logger=self.log,
            limiter=Limiter.local(),
            registry=Registry(self.holder, self.config, self.upstream),
            mailboxes=Mailboxes(folder / "run", "0"),
            query_keys=True,
        )
        self.calls: list[Call] = []
        self.gateway.observers.append(self.calls.append)

    @property
    def session(self) -> bytes:
        """The id of a session of the upstream's, as a client of this key holds it."""
        (key,) = [key for key in self.holder.keys.values() if self.key.startswith(key.prefix)]
        sealed = self.gateway.sealer.seal(b"upstream-session", key_id=str(key.id), upstream="crm")
        assert sealed is not None
        return sealed.encode()

    def client(self, data: bytes = b"", **more: Any) -> Client:
        return Client(self.order, data, **more)

    async def ask(
        self,
        data: bytes | Client = b"",
        *,
        verb: str = "POST",
        key: str | None = None,
        endpoint: str = "mcp",
        slug: str = "crm",
        host: bytes = b"localhost",
        kind: bytes | None = JSON,
        headers: Any = (),
        scope: Any = (),
        meanwhile: Callable[[Call], Any] | None = None,
        after: str = "upstream",
    ) -> Seen:
        """Send one request; `meanwhile` is done to the call once the order has come to `after`."""
        client = data if isinstance(data, Client) else self.client(data)
        lines = [(b"host", host), (b"accept", b"application/json, text/event-stream"), *headers]
        if kind is not None and verb == "POST":
            lines.append((b"content-type", kind))
        if key != "":
            lines.append((b"authorization", b"Bearer " + (key or self.key).encode()))
        described = {
            "type": "http",
            "method": verb,
            "headers": lines,
            "client": ("127.0.0.1", 9),
            "path": f"/mcp/{slug}",
        }
        exchange = Exchange({**described, **dict(scope)}, client.receive, client.send)
        events, begun = len(self.log.events), len(self.order)
        waiting = None
        if meanwhile is not None:
            waiting = asyncio.ensure_future(self._meanwhile(meanwhile, after, begun, exchange))
        try:
            async with asyncio.timeout(5):
                await handle(self.gateway, exchange, endpoint=endpoint, slug=slug)
        finally:
            exchange.close()
            if waiting is not None:
                waiting.cancel()
        mine = [each for each in self.calls if each.exchange.scope is exchange.scope]
        for each in mine:
            assert each not in self.gateway.calls and each not in self.gateway.streams.get(each.key_id, ())
            assert each.record is not Record.OPEN, "every end is settled"
        return Seen(client, mine, self.log.events[events:], self.order[begun:])

    async def _meanwhile(self, act: Callable[[Call], Any], after: str, begun: int, exchange: Exchange) -> None:
        until = time.monotonic() + 5
        while after not in self.order[begun:] and time.monotonic() < until:
            await asyncio.sleep(0)
        found = next(each for each in self.gateway.calls if each.exchange.scope is exchange.scope)
        done = act(found)
        if inspect.isawaitable(done):
            await done


async def never(*_: Any) -> Any:
    """What an upstream that says nothing is waited for."""
    await asyncio.sleep(60)


def made(data: bytes, *, state: State = State.SENT, **known: Any) -> Call:
    """A call as it stands at one moment."""
    read = message.read(data)

    async def nobody(*_: Any) -> Any:
        raise AssertionError("nobody reads here")

    scope = {"type": "http", "method": "POST", "headers": []}
    found = Call(Exchange(scope, nobody, nobody), endpoint="mcp", slug="crm")
    found.message, found.known, found.rpc_id = read, read.known, read.known.id_json or b""
    found.state = state
    for name, value in known.items():
        setattr(found, name, value)
    return found
