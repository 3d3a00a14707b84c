"""The pipeline: what happens to every request, in order, on one screen.

    authenticate -> parse -> authorize -> rate-limit -> record intent -> forward -> record outcome

Each stage is one function with one job; it fills in the call or raises `Refused` (or, while forwarding, an
`UpstreamError` or `Departed`). Whatever a stage raises, the outcome is recorded in the `finally`: the audit stands
outside authentication, and no stage can be skipped by an exception.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from audit.journal.tickets import AuditUnavailable
from core.access.addresses import client_address
from policies.engine.compiled import PolicySet
from policies.engine.decide import decide, decide_reference, decide_unseen, unless_blocked
from policies.engine.dispatchers import dispatcher_path, inner_calls, refused_within
from policies.engine.limits import limits_for
from policies.engine.types import Context, Decision, Principal, Target
from policies.vocabulary import CALLS, OPEN, TASK_METHODS
from proxy import outcomes
from proxy.call import Call, State
from proxy.follow_ups import resumption, tasks
from proxy.follow_ups.in_flight import CANCEL
from proxy.gateway import Gateway
from proxy.http import cors
from proxy.http.credentials import SCOPE_KEY, presented
from proxy.http.exchange import CANCELLED, Departed, Exchange
from proxy.http.headers import JSON, LAST_EVENT_ID, is_json, is_plain
from proxy.http.origins import host_allowed, origin_allowed
from proxy.http.refusals import refuse
from proxy.legacy import endpoint as legacy_sse
from proxy.mcp import era
from proxy.mcp.message import Message, Readable, Refused, glance, peek, read
from proxy.mcp.mirrors import VERSION, ParamHeader, Sent, protocol_headers
from proxy.relay import relay
from proxy.request import upstream_request
from proxy.upstreams.probe import expired
from proxy.upstreams.registry import UpstreamSpec
from proxy.upstreams.transports.base import Cancelled, UpstreamError

log = logging.getLogger("sentinel.proxy")

#: what is read of a request without a valid key, so that its event can name what it wanted: bytes, seconds
STRANGER_BYTES = 64 * 1024
STRANGER_SECONDS = 5.0
#: bodies larger than this are parsed in a thread, one of each key at a time
PARSE_OFF_LOOP = 64 * 1024

#: how long the upstream's stream of a call that was cancelled is left open, for the cancel to come first
CANCEL_SECONDS = 2.0

#: methods that speak of a target without calling it: they follow what its lists show
REFERRING = TASK_METHODS | {
    "completion/complete",
    "resources/subscribe",
    "resources/unsubscribe",
    "subscriptions/listen",
}

Decide = Callable[[PolicySet, Principal, Target, Context], Decision]

ALLOWED_VERBS = {"mcp": ("POST", "GET", "DELETE"), "sse": ("GET",), "messages": ("POST",)}


async def handle(gateway: Gateway, exchange: Exchange, *, endpoint: str, slug: str) -> None:
    """Take one request through every stage; never raises, and leaves exactly one event (a granted preflight is none)."""
    call = Call(exchange, endpoint=endpoint, slug=slug)
    if cors.ORIGIN in call.lookup:
        config = gateway.config
        if await cors.answered(call, exchange, config.allowed_origins, config.allowed_hosts):
            return
    gateway.calls.add(call)
    try:
        await read_body(gateway, call, authenticate(gateway, call))
        await parse(gateway, call)
        authorize(gateway, call)
        await rate_limit(gateway, call)
        await record_intent(gateway, call)
        await forward(gateway, call)
    except Refused as refused:
        outcomes.refused(call, refused)
    except Cancelled:
        outcomes.departed(call, CANCELLED)
    except UpstreamError as error:
        outcomes.upstream_failed(gateway, call, error)
    except Departed as departed:
        outcomes.departed(call, departed.reason)
    except AuditUnavailable as error:
        outcomes.unrecordable(call, error)
    except asyncio.CancelledError:
        outcomes.departed(call, "server_stopping")
    except Exception:
        # The one blind except on the way of a request: a defect of ours ends as a recorded 500, never as a lost event.
        log.exception("a stage failed", extra={"audit_id": str(call.id)})
        outcomes.failed(call)
    finally:
        await outcomes.record(gateway, call)
        gateway.calls.discard(call)
        gateway.in_flight.discard(call)
        if call.held is not None:
            call.held.close()


# -- authenticate


def authenticate(gateway: Gateway, call: Call) -> Refused | None:
    """Whose key is it? A failure is returned, not raised: the body is read first, so that the event can name it."""
    since = time.perf_counter_ns()
    config = gateway.config
    scope = call.exchange.scope
    peer = scope.get("client")
    call.client_ip = client_address(
        peer[0] if peer else None, call.header_values(b"x-forwarded-for"), config.trusted_proxies
    )
    call.presented = presented(call.headers, scope.get(SCOPE_KEY, ()))
    failure = ""
    if call.presented.ambiguous:
        failure = "credential_ambiguous"
    elif call.presented.misplaced:
        failure = "credential_misplaced"
    elif call.presented.via == "none":
        failure = cors.refusal(call, config.allowed_hosts) or "missing_credential"
    else:
        snapshot = gateway.snapshot
        if snapshot is None:
            return _failed(call, "policy_stale", since)
        call.policy_version = snapshot.version
        call.auth = snapshot.authenticate(
            call.presented.value, now=time.time(), client_ip=call.client_ip, via=call.presented.via
        )
        failure = call.auth.failure
        if not failure and call.presented.via == "query" and not gateway.query_keys:
            failure = "query_forbidden"
        if not failure:
            call.principal = call.auth.principal
            call.key_id = str(call.principal.key_id) if call.principal is not None else ""
    if failure:
        return _failed(call, failure, since)
    call.stage("authenticate", "ok", since)
    return None


def _failed(call: Call, reason: str, since: int) -> Refused:
    call.stage("authenticate", reason, since)
    return refuse(reason)


# -- parse


async def read_body(gateway: Gateway, call: Call, failure: Refused | None) -> None:
    """Read the body in bounds: narrow ones for a stranger, whose request ends here with what could be known of it."""
    exchange = call.exchange
    if failure is None:
        call.body = await exchange.read_body(
            gateway.config.max_body_bytes, gateway.config.body_timeout, lambda size: call.holds(gateway.ledger, size)
        )
        exchange.watch()
        return
    call.body = await exchange.read_body(STRANGER_BYTES, STRANGER_SECONDS)
    admission = outcomes.admit(gateway, call, failure.reason)
    if admission.counted:
        outcomes.known(call, glance(call.body))  # one more of a flood is not worth reading
    else:
        with outcomes.paying(gateway, admission):
            outcomes.known(call, peek(call.body))
    raise failure


async def parse(gateway: Gateway, call: Call) -> None:
    """What does it ask? Host, verb, body, era and session: read once, strictly, and in agreement."""
    since = time.perf_counter_ns()
    try:
        await _understand(gateway, call)
    except Refused as refused:
        call.stage("parse", refused.reason, since)
        raise
    call.stage("parse", "ok", since)


async def _understand(gateway: Gateway, call: Call) -> None:
    config = gateway.config
    hosts = call.header_values(b"host")
    if not host_allowed(hosts, config.allowed_hosts):
        raise refuse("bad_host", call=call)
    if not origin_allowed(call.header_values(b"origin"), config.allowed_origins, hosts[0], config.allowed_hosts):
        raise refuse("bad_origin", call=call)
    verbs = ALLOWED_VERBS[call.endpoint]
    if call.verb not in verbs:
        raise refuse("method_not_allowed", call=call, headers=((b"allow", ", ".join(verbs).encode()),))
    if LAST_EVENT_ID in call.lookup and len(call.header_values(LAST_EVENT_ID)) > 1:
        raise refuse("invalid_request", call=call, message="Last-Event-ID was sent twice.")
    call.spec = gateway.upstream(call.slug)
    if call.verb == "POST":
        await _parse_message(gateway, call)
    if call.spec is None:
        raise refuse("unknown_upstream", call=call)
    sent = Sent(call.headers, call.message.known if call.message is not None else Readable())
    call.era = era.classify(call.verb, sent, call.message)
    _same_era(call, call.spec)
    call.protocol = _protocol(call, call.spec, sent)
    await _open_session(gateway, call)
    if LAST_EVENT_ID in call.lookup:
        resumption.claim(gateway, call)
    if not gateway.in_flight.add(call):
        raise refuse("id_in_use", call=call)
    if call.message is not None and not call.message.open and call.message.method not in CALLS:
        await tasks.claim(gateway, call)


async def _parse_message(gateway: Gateway, call: Call) -> None:
    state = call.exchange.body_state
    if state == "gone":
        raise Departed("client_gone")
    if state == "too_large":
        outcomes.known(call, glance(call.body))
        raise refuse("body_too_large", call=call)
    if state == "timed_out":
        raise refuse("body_timeout", call=call)
    if state == "over_share":
        raise refuse("too_much_waiting", call=call, retry_after=5)
    if b"content-encoding" in call.lookup and not is_plain(call.header_values(b"content-encoding")):
        raise refuse("unsupported_encoding", call=call)
    types = call.header_values(b"content-type")
    if types != [JSON] and not is_json(types):
        raise refuse("unsupported_media_type", call=call)
    if len(call.body) <= PARSE_OFF_LOOP:
        message = read(call.body)
    else:
        message = await gateway.heavy.run(call.key_id, read, call.body)
    call.message = message
    outcomes.known(call, message.known)


def _same_era(call: Call, spec: UpstreamSpec) -> None:
    """A client and an upstream of two eras: said in words that make a client that speaks both fall back by itself."""
    if call.endpoint != "mcp" and call.era is not None and call.era.modern:
        data = {"supported": list(era.LEGACY_VERSIONS), "requested": call.era.version}
        text = "The older HTTP+SSE transport carries earlier versions of the protocol alone; this one is served under /mcp."
        raise refuse("unsupported_version", call=call, message=text, data=data)
    if not spec.era or spec.era == "dual" or call.era is None or expired(spec.era, time.time() - spec.era_checked_at):
        return
    if spec.era == "legacy" and call.era.modern:
        supported: tuple[str, ...] = era.LEGACY_VERSIONS
        text = "This upstream speaks earlier versions of the protocol; use initialize."
    elif spec.era == "modern" and not call.era.modern and (call.verb == "POST" or call.endpoint == "sse"):
        supported = era.MODERN_VERSIONS
        text = "This upstream speaks 2026-07-28 only; there is no initialize."
    else:
        return
    data = {"supported": list(supported), "requested": call.era.version}
    raise refuse("era_mismatch", call=call, message=text, data=data)


def _protocol(call: Call, spec: UpstreamSpec, sent: Sent) -> list[tuple[bytes, bytes]]:
    """The protocol's own headers for the upstream; what a modern call mirrors in them must agree before anything is decided."""
    message = call.message
    if message is None or call.era is None or not call.era.modern:
        version = sent.get(VERSION)
        return [(VERSION, version)] if version is not None else []
    mirrored: tuple[ParamHeader, ...] = ()
    if message.method == "tools/call":
        for name in message.targets:
            known = spec.definition(name.kind, name.name)
            if known is not None:
                mirrored += known.mirrored
    return protocol_headers(sent, message, call.era.version, mirrored)


async def _open_session(gateway: Gateway, call: Call) -> None:
    """Open the client's session id with its key; unknown and another's are the same 404."""
    if call.endpoint != "mcp":
        if call.endpoint == "messages":
            await legacy_sse.open_endpoint(gateway, call)
        return
    sealed = call.header(b"mcp-session-id")
    if not sealed or (call.era is not None and call.era.name == "modern"):
        return
    if call.message is not None and call.message.method == "initialize":
        return  # a fresh start; a stale id that comes with it is not passed on
    value = gateway.sealer.open(sealed.decode("latin-1"), key_id=call.key_id, upstream=call.slug)
    if value is None or len(call.header_values(b"mcp-session-id")) != 1:
        call.session_refused = sealed
        raise refuse("unknown_session", call=call)
    call.session, call.session_presented = value, sealed


# -- authorize


def authorize(gateway: Gateway, call: Call) -> None:
    """May this key have each thing the message names? One refusal refuses the whole."""
    since = time.perf_counter_ns()
    snapshot, principal = gateway.snapshot, call.principal
    if snapshot is None or principal is None or gateway.holder.confirmed_age() > gateway.config.snapshot_max_age:
        raise refuse("policy_stale", call=call)
    call.policy_version = snapshot.version
    message = call.message
    if not principal.reaches(call.slug):
        call.decision = snapshot.policy.nothing
        call.stage("authorize", call.decision.reason, since)
        raise refuse(call.decision.reason, call=call, message=call.decision.message)
    context = Context(datetime.now(UTC), call.client_ip)
    if message is None or message.method not in CALLS:
        decision = _unless_named(call, snapshot.policy, principal, message, context)
        if not decision.allowed or message is None or message.open:
            call.decision = decision
            call.stage("authorize", decision.reason, since)
            if not decision.allowed:
                raise refuse(decision.reason, call=call, message=decision.message)
            return
    calls = message.method in CALLS
    how = decide_reference if message.method in REFERRING else decide
    for name in message.targets if calls else tasks.ruling(call):
        target = Target(name.kind, call.slug, name.name, name.arguments)
        if call.target is None:
            call.target = target
        decision = _decide(call.spec, snapshot.policy, principal, target, context, how)
        if decision.allowed and calls and call.spec is not None and call.spec.dispatchers:
            target, decision = _refused_within(call, snapshot.policy, principal, target, context) or (
                target,
                decision,
            )
        if call.decision is None or not decision.allowed:
            call.target, call.decision = target, decision
        if not decision.allowed:
            call.stage("authorize", decision.reason, since)
            raise refuse(decision.reason, call=call, message=decision.message)
    call.stage("authorize", call.decision.reason if call.decision else "allowed_by_rule", since)


def _unless_named(
    call: Call, policy: PolicySet, principal: Principal, message: Message | None, context: Context
) -> Decision:
    """What is no call needs no rule for its method, but one may deny it by name; answers and streams have none."""
    if message is None or not message.method:
        return policy.open
    decision = decide(policy, principal, Target(OPEN, call.slug, message.method), context)
    if not decision.allowed:
        call.target = Target("method", call.slug, message.method)
    return decision


def _decide(
    spec: UpstreamSpec | None, policy: PolicySet, principal: Principal, target: Target, context: Context, how: Decide
) -> Decision:
    """Decide, and only then consult the catalogue: hidden and nonexistent look the same."""
    pinned = spec.definition(target.kind, target.name) if spec is not None else None
    if pinned is not None and pinned.annotations:
        target = Target(target.kind, target.upstream, target.name, target.arguments, pinned.annotations)
    decision = how(policy, principal, target, context)
    return unless_blocked(decision, pinned is not None and pinned.blocked)


def _refused_within(
    call: Call, policy: PolicySet, principal: Principal, outer: Target, context: Context
) -> tuple[Target, Decision] | None:
    """A tool that calls or describes another by name: who may not have that one may not have it this way either."""
    spec = call.spec
    path = dispatcher_path(spec.dispatchers, outer.name) if spec is not None and outer.kind == "tool" else ""
    if spec is None or not path:
        return None
    within = inner_calls(outer, path, spec.tools_alike)
    call.details["inner"] = None if within is None else [inner[0].name for inner in within]
    call.within = within or ()

    def one(inner: Target) -> Decision:
        return _decide(spec, policy, principal, inner, context, decide_unseen)

    def nests(name: str) -> bool:
        return bool(dispatcher_path(spec.dispatchers, name))

    return refused_within(outer, path, within, one, policy.nothing, nests)


# -- rate-limit


async def rate_limit(gateway: Gateway, call: Call) -> None:
    """Is there room? Every limit that applies is checked, then all are consumed or none.

    Limits count what is executed or read. All else keeps client and server in touch, has a bound of its own against floods,
    and is never refused where nobody waits for its answer: a cancel, or an answer to the server, would be lost.
    """
    since = time.perf_counter_ns()
    snapshot, principal, message = gateway.snapshot, call.principal, call.message
    target, within = call.target, call.within
    if snapshot is None or principal is None:
        raise refuse("policy_stale", call=call)
    if message is None or message.method not in CALLS:
        wait = gateway.traffic.wait(call.key_id)
        if wait and (call.verb == "GET" or (message is not None and message.kind == "request")):
            call.stage("rate-limit", "too_much_traffic", since)
            raise refuse("too_much_traffic", call=call, retry_after=wait)
        named = message is not None and (message.kind == "request" or not message.open)
        target, within = Target("method", call.slug, message.method) if message is not None and named else None, ()
    refs = limits_for(snapshot.policy.limits, principal, target, within) if target is not None else ()
    if refs:
        admission = await gateway.limiter.admit(refs)
        if not admission.allowed:
            if admission.which is not None:
                full = admission.which.spec
                limit = {"id": full.id, "name": full.label(), "requests": full.requests}
                call.details["limit"] = {
                    **limit,
                    "window_seconds": full.window_seconds,
                    "retry_after": admission.retry_after,
                }
            call.stage("rate-limit", admission.reason, since)
            raise refuse(admission.reason, call=call, retry_after=admission.retry_after, headers=admission.headers)
    if call.listens and (
        gateway.stream_count >= gateway.config.max_streams
        or gateway.streams_of(call.key_id) >= gateway.config.max_streams_per_key
    ):
        call.stage("rate-limit", "too_many_streams", since)
        raise refuse("too_many_streams", call=call)
    call.stage("rate-limit", "ok", since)


# -- record intent, forward


async def record_intent(gateway: Gateway, call: Call) -> None:
    """Nothing is executed without a record: a durable intent before the upstream sees a byte."""
    call.event = await outcomes.event(gateway, call)
    ticket = gateway.logger.intent(call.event)
    call.reach(State.INTENDED)
    await ticket
    if call.resumes is not None:
        resumption.take_up(gateway, call)


async def forward(gateway: Gateway, call: Call) -> None:
    """Send the original bytes to the upstream and relay its answer as it comes."""
    if call.spec is None:
        raise refuse("unknown_upstream", call=call)
    transport = gateway.registry.transport(call.spec.slug)
    since = time.perf_counter_ns()
    response = None
    await legacy_sse.accept(call)
    if tasks.asks(call):
        await tasks.expect(gateway, call)
    try:
        with call.exchange.interruptible():
            call.reach(State.SENT)
            gateway.sent(call)
            if call.message is not None and call.message.method == CANCEL and call.spec.transport == "streamable-http":
                gateway.in_flight.take_back(call)
            if call.endpoint == "mcp":
                response = await transport.send(upstream_request(call))
            else:
                response = await legacy_sse.send(gateway, call)
            call.upstream_ns = time.perf_counter_ns() - since
        await relay(gateway, call, response)
    finally:
        if response is not None and call.exchange.ended_by == CANCELLED:
            # The upstream hears of the cancel on the connection it comes on, and not by the loss of this one.
            asyncio.get_running_loop().call_later(CANCEL_SECONDS, response.abort)
        elif response is not None:
            response.abort()
