"""How a request ended: the event it leaves, made durable first, and the answer it gets, sent after."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from audit.events import tool_errors
from audit.events.event import Event
from audit.journal.logger import Admission, Refusal
from audit.journal.tickets import AuditUnavailable
from audit.reasons import REASONS, answering
from audit.redaction.json_digits import dumps
from audit.redaction.sanitizer import MISSING, Payload
from audit.redaction.sanitizer import current as current_sanitizer
from core.ids import uuid7
from policies.vocabulary import AUDIT_LEVELS, UNSEEN
from proxy.call import Call, Record, State
from proxy.gateway import Gateway
from proxy.http import trace_context
from proxy.http.cors import ORIGIN
from proxy.http.exchange import CANCELLED
from proxy.http.refusals import Answer, Style, about_one_call, answer, refuse
from proxy.legacy import endpoint
from proxy.mcp.message import Readable, Refused
from proxy.mcp.replies import Reply
from proxy.mcp.sse import encode
from proxy.request import cancel_upstream, takes_cancels
from proxy.upstreams.transports.base import Busy, TimedOut, UpstreamError

log = logging.getLogger("sentinel.proxy")

#: how much of the request of a caller without a valid key is looked at and kept, in bytes
STRANGER_PAYLOAD = 1024

#: characters of names that together are no ordinary request's: they are redacted off the loop, in their caller's turn
LONG_NAMES = 768
#: characters of a name or version that a client gives itself
CLIENT_NAME = 128
#: characters of the origin that a browser names
ORIGIN_NAME = 256

#: what is said of a request that the upstream was sent and did not answer
MAY_HAVE_RUN = "It may have run."
#: what is said where the upstream was sent a request, and the log takes no outcome; the second where it was answered
NOT_RECORDED = "The audit log cannot record this now."
WAS_DONE = f"{NOT_RECORDED} It was done all the same."
#: the reason of a request that the upstream itself refused, with a status of its own
UPSTREAM_REFUSED = "upstream_refused"
#: ends for which a client waits for no answer: it left, or took the request back
UNANSWERED = frozenset({"client_gone", CANCELLED})
_NO_ANSWER = ((b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), (b"content-length", b"0"))
_TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


# -- what the stages report


def known(call: Call, what: Readable) -> None:
    """Note what a message says of itself, also when the rest of it was refused."""
    call.rpc_id = what.id_json or b""
    call.known = what


def refused(call: Call, error: Refused) -> None:
    if call.known.method == "" and error.known.method:
        known(call, error.known)
    if error.rpc_id is None and call.rpc_id:
        error.known = Readable(call.known.kind, call.rpc_id, call.known.method, call.known.targets)
    _let_go(error)
    _end(call, error)
    call.details["refusal"] = error.message


def upstream_failed(gateway: Gateway, call: Call, error: UpstreamError) -> None:
    """The upstream gave no usable answer."""
    if call.exchange.ended_by == CANCELLED:
        departed(call, CANCELLED)
        return
    _let_go(error)
    if gateway.stopping and call.spec is not None and call.spec.transport != "streamable-http" and error.executed:
        departed(call, "server_stopping")  # what is shared by workers lives in a process of ours, which is stopped too
        return
    retry_after = error.retry_after if isinstance(error, Busy) else None
    if not error.executed:
        call.unsent()
    if isinstance(error, TimedOut) and takes_cancels(call):
        gateway.spawn(cancel_upstream(gateway, call))
    _end(call, refuse(error.reason, call=call, message=str(error), retry_after=retry_after))
    call.outcome = "upstream_error"  # also where its caller did not read what came
    if error.detail:
        call.details["error"] = error.detail
    call.said = error.said


def departed(call: Call, reason: str) -> None:
    """The exchange ended before its answer: the client left or cancelled, its key was revoked, or the server stops."""
    if call.record or (call.state == State.DELIVERED and reason in UNANSWERED):
        return  # it had what it asked for; many clients close a stream with their answer
    call.outcome = REASONS[reason].outcome
    call.reason = reason
    # on a stream of the older transport nothing of an answer has begun yet
    begun = call.answer_status if call.link is None or call.answered else 0
    if reason in UNANSWERED:
        call.answer_status = begun or 499
        return
    call.refusal = refuse(reason, call=call)
    call.answer_status = begun if begun and not _has_last_word(call) else call.refusal.status


def unrecordable(call: Call, error: AuditUnavailable) -> None:
    """The journal took no intent, and nothing was executed; or no outcome, and the caller is told what became of the request."""
    _let_go(error)
    log.error("the audit journal takes no record", extra={"error": str(error)})
    done = ran(call)
    if done and call.streaming:
        done = None  # its answer may not have come yet
    message = "" if done is False else WAS_DONE if done else NOT_RECORDED
    data = {"may_have_run": True} if done is None else {"executed": done}
    _end(call, refuse("audit_unavailable", call=call, message=message, data=data))
    call.close(Record.LOST)


def _end(call: Call, refusal: Refused) -> None:
    """Note what a call is answered with, and the outcome that its reason has."""
    call.refusal, call.reason, call.answer_status = refusal, refusal.reason, refusal.status
    call.outcome = answering(refusal.reason).outcome


def _let_go(error: BaseException) -> None:
    """Forget where an error was raised: the frames hold the call, which with its body would wait for the collector."""
    error.__traceback__ = error.__context__ = error.__cause__ = None


def failed(call: Call) -> None:
    """A defect of our own."""
    _end(call, refuse("internal_error", call=call))


# -- what a refusal costs


def admit(gateway: Gateway, call: Call, reason: str) -> Admission:
    """Ask the log what this refusal leaves, before an event is made; counts it at once when it is one more of a flood."""
    if call.admission is None:
        kind, name = _target(call)
        key_id = call.principal.key_id if call.principal is not None else None
        method = call.known.method
        call.admission = gateway.logger.admit(
            Refusal(
                key_id,
                call.client_ip,
                reason,
                call.slug,
                method,
                kind,
                name if kind != "method" else "",
                len(call.body),
            )
        )
    return call.admission


@contextmanager
def paying(gateway: Gateway, admission: Admission | None) -> Iterator[None]:
    """Charge what this thread does for a refusal to whoever was refused: work is bounded by its cost, not by its size."""
    if admission is None:
        yield
        return
    began = time.thread_time()
    try:
        yield
    finally:
        gateway.logger.charge(admission, time.thread_time() - began)


# -- the event


async def event(gateway: Gateway, call: Call, *, whole: bool = True) -> Event:
    """Make the event of a call from what is known so far; its payload is sanitised here, off the loop when large.

    Without `whole` what was asked leaves its size and digest alone.
    """
    request = await _request(gateway, call, whole)
    short = len(call.body) + len(call.header(b"user-agent")) <= LONG_NAMES
    if not short and _names(call) > LONG_NAMES:
        return await gateway.heavy.run(call.key_id or call.client_ip, _made, gateway, call, request)
    return _event(gateway, call, request) if call.admission is None else _made(gateway, call, request)


def _names(call: Call) -> int:
    return len(call.header(b"user-agent")) + sum(map(len, (*_target(call), call.known.method, call.rpc_id)))


async def _request(gateway: Gateway, call: Call, whole: bool) -> Any:
    call.level = _level(gateway, call)
    level = call.level if whole or call.level == "none" else "digest"
    if not call.body:
        return MISSING
    if call.principal is None:
        with paying(gateway, call.admission):
            return current_sanitizer().payload(raw=call.body[:STRANGER_PAYLOAD], level=level)
    message = call.message
    if message is None:
        return await gateway.payload(call.body, caller=call.key_id, level=level)
    return await gateway.payload(call.body, message.value, compact=message.compact, caller=call.key_id, level=level)


def _target(call: Call) -> tuple[str, str]:
    """Kind and name of what was asked for, "" where nothing was named."""
    first = call.known.targets[0] if call.known.targets else None
    target = call.target or first
    return (target.kind, target.name) if target is not None else ("", "")


def _made(gateway: Gateway, call: Call, request: Any) -> Event:
    """The same of a refusal, which is paid for."""
    with paying(gateway, call.admission):
        return _event(gateway, call, request)


def _event(gateway: Gateway, call: Call, request: Any) -> Event:
    principal, auth, key = call.principal, call.auth, None
    if auth is not None:
        key = auth.key
    call.details = {**_details(call), **call.details}
    kind, name = _target(call)
    return Event(
        id=call.id,
        api_key_id=principal.key_id if principal is not None else key.id if key is not None else None,
        key_prefix=auth.prefix if auth is not None else "",
        key_name=key.name if key is not None else "",
        role=principal.role if principal is not None else key.role if key is not None else "",
        auth_method=call.presented.via,
        client_ip=call.client_ip or None,
        user_agent=call.header(b"user-agent").decode("latin-1"),
        upstream=call.slug,
        protocol_version=call.era.version if call.era is not None else _version(call),
        session=_session(gateway, call) if call.session or call.session_refused else "",
        rpc_id=call.rpc_id.decode("utf-8", "replace"),
        method=call.known.method or ("" if call.verb == "POST" else call.verb),
        tool_name=name if kind != "method" and name else None,
        target_kind=kind,
        request_json=request,
        request_bytes=len(call.body),
        trace_id=_trace(call),
        details=call.details,
    )


def asked(gateway: Gateway, call: Call, reply: Reply, request: Payload, allowed: bool, reason: str) -> Event:
    """Make the event of a request of the server's, which came on a call's stream; its answer has the same session and JSON-RPC id."""
    about = {
        "allowed": allowed,
        "stage": "authorize",
        "reason": reason,
        "rule": None,
        "policy_version": call.policy_version,
    }
    return _event(gateway, call, MISSING).complete(
        id=uuid7(),
        ts=datetime.now(UTC),
        rpc_id=dumps(reply.id).decode("utf-8", "replace"),
        method=reply.method,
        tool_name=None,
        target_kind="method",
        outcome="allowed" if allowed else "denied",
        reason=reason,
        status_code=200 if allowed else 403,
        decision=about,
        request_json=request,
        request_bytes=request.size,
        details={"asked_on": str(call.id)},
    )


def _session(gateway: Gateway, call: Call) -> str:
    """Name the session, also one that was refused: as the events of the session that the id claims to be have it."""
    value = call.session or gateway.sealer.claimed(call.session_refused)
    return gateway.sealer.reference(value) if value else ""


def _level(gateway: Gateway, call: Call) -> str:
    """How much of the payloads is kept: what policy says of the target and of the tools that it calls, the one that keeps
    least; else the upstream, else all of it.
    """
    snapshot, target = gateway.snapshot, call.target
    level = ""
    if snapshot is not None and target is not None and call.principal is not None:
        policy, role = snapshot.policy, call.principal.role
        level = policy.audit_level(role, target.kind, target.upstream, target.name)
        if call.within:
            every = (named for inner in call.within for named in inner)
            found = {policy.audit_level(role, UNSEEN, each.upstream, each.name) for each in every} | {level}
            level = max(found - {""}, key=AUDIT_LEVELS.index, default="")
    return level or (call.spec.audit_level if call.spec is not None else "") or "full"


def _version(call: Call) -> str:
    return call.header(b"mcp-protocol-version").decode("latin-1")


def _trace(call: Call) -> str:
    found: Any = call.message.meta.get("traceparent") if call.message is not None else None
    if not isinstance(found, str):
        if trace_context.TRACEPARENT not in call.lookup:
            return ""
        found = trace_context.parent(call.header_values(trace_context.TRACEPARENT)).decode()
    match = _TRACE.fullmatch(found)
    return match[1] if match else ""


def _details(call: Call) -> dict[str, Any]:
    details: dict[str, Any] = {"verb": call.verb, "endpoint": call.endpoint}
    if ORIGIN in call.lookup:
        details["origin"] = call.header(ORIGIN)[:ORIGIN_NAME].decode("latin-1")
    if call.message is not None and (client := call.message.client_info):
        details["client"] = {
            k: v if isinstance(v, str) and len(v) <= CLIENT_NAME else _odd(v)
            for k in ("name", "version", "title")
            if (v := client.get(k, MISSING)) is not MISSING
        }
    if call.auth is not None:
        if call.auth.generation:
            details["generation"] = call.auth.generation
        if call.auth.failure and call.auth.fingerprint:
            details["key_fingerprint"] = call.auth.fingerprint
    elif call.presented.value:
        details["key_fingerprint"] = "none"
    return details


def _odd(value: Any) -> Any:
    """Name what a client says of itself where it is no short text, as such things are: it stands in the request."""
    if isinstance(value, str):
        return f"[{len(value)} characters]"
    return value if value is None or isinstance(value, (int, float, bool)) else "[not a text]"


def decision(call: Call) -> dict[str, Any]:
    """The decision as the event keeps it: what settled it, by which rule, and what each stage said and took."""
    settled = call.decision
    last = call.stages[-1]["stage"] if call.stages else "authenticate"
    if call.refusal is None and settled is not None:
        last = "authorize"
    rule = settled.rule if settled is not None else None
    value: dict[str, Any] = {
        "allowed": settled.allowed if settled is not None else None,
        "stage": last,
        "reason": settled.reason if settled is not None else call.reason,
        "rule": {"id": rule.id, "name": rule.name, "effect": rule.effect} if rule is not None else None,
        "policy_version": call.policy_version,
        "executed": ran(call),
        "stages": call.stages,
    }
    if settled is not None and settled.observed:
        value["observed"] = [{"id": seen.id, "name": seen.name, "effect": seen.effect} for seen in settled.observed]
    return value


def ran(call: Call) -> bool | None:
    """Say whether the upstream did what it was asked: no when it was not sent or refused it itself, None when nobody knows."""
    if call.state < State.SENT or call.reason == UPSTREAM_REFUSED:
        return False
    if call.record == Record.LOST and call.refusal is not None:
        return (call.refusal.data or {}).get("executed")  # as was known before the log failed
    return True if call.outcome == "allowed" else None


def complete(call: Call, *, response: Payload | None = None, response_bytes: int = 0) -> None:
    """Add the outcome to the event of a call that had an intent."""
    if call.link is not None:
        call.link.settled = True
    if call.event is None:
        return
    fields: dict[str, Any] = {
        "outcome": call.outcome,
        "reason": call.reason,
        "status_code": call.answer_status,
        "latency_ms": call.elapsed_ms(),
        "upstream_ms": round(call.upstream_ns / 1e6, 3) if call.upstream_ns else None,
        "decision": decision(call),
    }
    if response is None and call.said:
        # What the upstream said when it failed is a payload like any other: under the audit level, for those who may read
        # payloads, and erased with them.
        said = call.said.encode("utf-8", "surrogatepass")
        response = current_sanitizer().payload(raw=said, level=call.level, side="response")
    if response is not None:
        fields["response_json"] = response
    if response_bytes:
        fields["response_bytes"] = response_bytes
    fields["details"], fields["tool_error"] = call.details, tool_errors.said(call.details)
    call.event.complete(**fields)


# -- the end


async def record(gateway: Gateway, call: Call) -> None:
    """Make the outcome durable, then answer; the last thing that happens to every request."""
    try:
        answered = call.record == Record.KEPT and call.exchange.finished
        if not answered:  # most calls are: they need no task of their own here
            await asyncio.shield(_record(gateway, call))
    except asyncio.CancelledError:
        # The server is being stopped hard: the record goes on in the shielded task.
        log.warning("a request was cancelled while its outcome was recorded", extra={"audit_id": str(call.id)})
    except Exception:
        log.exception("an outcome could not be recorded", extra={"audit_id": str(call.id)})
    finally:
        if call.link is not None:
            call.link.close()
        for observe in gateway.observers:
            observe(call)


async def _record(gateway: Gateway, call: Call) -> None:
    audit_id = str(call.id)
    if not call.record:
        try:
            audit_id = await _durable(gateway, call)
        except AuditUnavailable as error:
            unrecordable(call, error)
    if call.record == Record.LOST:
        audit_id = await _unrecorded(gateway, call)
    await _answer(gateway, call, audit_id)


async def _unrecorded(gateway: Gateway, call: Call) -> str:
    """Leave what can be left of a request that the journal did not take: a count, or what is written when it is back."""
    if call.executed:
        call.details["executed"] = True
    call.event = call.event or await event(gateway, call)
    complete(call)
    return gateway.logger.unrecorded(call.event)


async def _durable(gateway: Gateway, call: Call) -> str:
    if call.intended and call.event is not None:
        complete(call)
        if call.waits:
            await gateway.logger.resumable(call.event, gateway.config.resume_wait, ended=True)
        else:
            await (gateway.logger.end(call.event) if call.answered else gateway.logger.outcome(call.event))
        call.close(Record.KEPT)
        return str(call.id)
    admission = admit(gateway, call, call.reason)
    if admission.counted:
        call.close(Record.KEPT)
        return admission.counted
    call.event = call.event or await event(gateway, call, whole=admission.whole)
    with paying(gateway, admission):
        complete(call)
        audit_id, ticket = gateway.logger.refuse(call.event, admission)
    await ticket
    call.close(Record.KEPT)
    return audit_id


async def _answer(gateway: Gateway, call: Call, audit_id: str) -> None:
    exchange = call.exchange
    if exchange.finished or exchange.ended_by == "client_gone":
        return
    refusal = call.refusal
    if exchange.started or call.answered or (refusal is None and call.link is not None):
        if call.streaming:
            last = b""
            if refusal is not None and _has_last_word(call):
                # The head of the answer is out, so why there is none is told as the stream's last event.
                last = encode(answer_for(gateway, call, refusal, audit_id).body)
            await exchange.finish(last)
        return
    if refusal is None:
        if call.reason == CANCELLED:  # nobody waits: a stream without an answer is the protocol's own way to say that
            await exchange.answer(200, list(_NO_ANSWER), b"")
        return
    streamed = await endpoint.in_stream(gateway, call)
    made = answer_for(gateway, call, refusal, audit_id)
    if streamed:
        exchange = call.exchange
    await exchange.answer(made.status, made.headers, b"" if call.verb == "HEAD" else made.body)


def _has_last_word(call: Call) -> bool:
    """Say whether somebody still waits for an answer on a stream that ends, and can be told why there is none."""
    return bool(call.rpc_id) and not (call.answered or call.waits or call.torn)


def fate(call: Call) -> dict[str, Any]:
    """Say in data what became of a request that is refused, where that is known to be nothing, or not known."""
    known = ran(call)
    return {"may_have_run": True} if known is None else {} if known else {"executed": False}


def answer_for(gateway: Gateway, call: Call, refusal: Refused, audit_id: str) -> Answer:
    """Give the answer to a call that was refused or failed, in the style that its client can make the most of."""
    became = fate(call)
    refusal.data = {**became, **(refusal.data or {})}
    if "may_have_run" in became and call.known.kind == "request":
        refusal.message = f"{refusal.message} {MAY_HAVE_RUN}"  # who asked decides whether to ask again
    modern = call.era is not None and call.era.modern
    return answer(refusal, audit_id=audit_id, style=_style(gateway, call, refusal), modern=modern)


def _style(gateway: Gateway, call: Call, refusal: Refused) -> Style:
    """Some SDKs end the whole session on any 4xx or 5xx, and most models read what a tool gave, but not an error: so `auto`
    tells a live legacy session within HTTP 200, of a tool as its result.
    """
    if not about_one_call(refusal) or call.principal is None:
        return "http"
    if call.known.kind != "request" or not refusal.rpc_id:
        return "http"  # nobody waits for an answer to it, or nobody could tell to what it is one
    mode = (call.spec.refusals if call.spec is not None else "") or gateway.config.refusals
    if mode == "http" or (mode == "auto" and not call.session and call.link is None):
        return "http"
    return "tool-result" if mode != "in-band" and _runs_a_tool(call) else "in-band"


def _runs_a_tool(call: Call) -> bool:
    """Whether what is asked for is what a tool gives, and not the task that would bring it."""
    message = call.message
    return message is not None and message.method == "tools/call" and "task" not in (message.params or {})
