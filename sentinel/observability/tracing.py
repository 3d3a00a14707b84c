"""Traces, when SENTINEL_OTEL_ENDPOINT is set: each finished call becomes one span, told to an OTLP collector.

A call costs its worker one entry in a queue; a thread makes the span out of it and the SDK's own sends it in batches. What the
collector does not take is dropped: a trace is a help, the audit log is the record. No payload is in a span, and names come out
of the call's event, where they are sanitised.

A caller's trace goes on: the span's parent is the `traceparent` of `params._meta`, else that of the HTTP header, the same
that the event's trace_id is read from. The upstream gets the caller's own header, so its spans stand beside this one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import re
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from core.conf.settings import Config, ConfigError
from proxy.http import trace_context
from sentinel.observability.metrics import METHODS

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

log = logging.getLogger("sentinel.traces")

QUEUE = 4096
STOP_SECONDS = 3.0
#: outcomes that are a failure of ours or of the upstream's, not a refusal
FAILURES = frozenset({"upstream_error", "interrupted", "unrecorded"})
MISSING = (
    "SENTINEL_OTEL_ENDPOINT is set, and the packages for traces are not installed; "
    "run `make install-otel`, or `pip install -r requirements-otel.txt`."
)
_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


class Note(NamedTuple):
    """What a span needs of a finished call: nothing that goes on changing."""

    started: int  # nanoseconds since 1970
    ended: int
    name: str
    parent: str
    state: str
    failure: str
    attributes: dict[str, Any]
    stages: tuple[dict[str, Any], ...]


def refuse_without_packages(config: Config) -> None:
    """Refuse a start that asks for traces where the packages for them are missing."""
    if not config.otel_endpoint:
        return
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace.export  # noqa: F401
    except ImportError:
        raise ConfigError(MISSING) from None


def start(config: Config) -> Spans | None:
    """Begin to tell spans, when that is asked for."""
    if not config.otel_endpoint:
        return None
    refuse_without_packages(config)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    address = config.otel_endpoint
    if not address.endswith("/v1/traces"):
        address += "/v1/traces"
    return Spans(OTLPSpanExporter(endpoint=address))


def note_of(call: Any) -> Note:
    """Take down what a span tells of a finished call."""
    now, elapsed = time.time_ns(), time.perf_counter_ns() - call.started_ns
    message, event = call.message, call.event
    method = message.method if message is not None else ""
    parent, state = _context(call)
    attributes: dict[str, Any] = {
        "sentinel.outcome": call.outcome,
        "sentinel.reason": call.reason,
        "http.request.method": call.verb,
        "http.response.status_code": call.answer_status,
        "sentinel.policy_version": call.policy_version,
    }
    if method:
        attributes["mcp.method.name"] = method if method in METHODS else "other"
    if call.spec is not None:
        attributes["sentinel.upstream"] = call.slug
    if call.upstream_ns:
        attributes["sentinel.upstream_ms"] = call.upstream_ns / 1e6
    if event is not None:
        if event.seq:  # else it is one of a flood, counted under another's id
            attributes["sentinel.audit_id"] = str(call.id)
        if event.tool_name is not None:
            attributes["sentinel.target.kind"] = event.target_kind
            attributes["sentinel.target.name"] = event.tool_name
        if event.protocol_version:
            attributes["mcp.protocol.version"] = event.protocol_version
    if call.outcome != "allowed":
        attributes["error.type"] = call.reason
    return Note(
        started=now - elapsed,
        ended=now,
        name=attributes.get("mcp.method.name", call.verb),
        parent=parent,
        state=state,
        failure=call.reason if call.outcome in FAILURES else "",
        attributes=attributes,
        stages=tuple(call.stages),
    )


def _context(call: Any) -> tuple[str, str]:
    """Give the caller's traceparent and tracestate, from where the event takes its trace_id."""
    meta = call.message.meta if call.message is not None else {}
    parent, state = meta.get("traceparent"), meta.get("tracestate")
    if isinstance(parent, str):
        return parent[:64], state[:512] if isinstance(state, str) else ""
    header: bytes = trace_context.parent(call.header_values(trace_context.TRACEPARENT))
    found = trace_context.state(call.header_values(trace_context.TRACESTATE)) if header else b""
    return header.decode(), found.decode()


class Spans:
    """Makes spans out of finished calls, in a thread of its own."""

    def __init__(self, exporter: SpanExporter) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        # The SDK reads OTEL_RESOURCE_ATTRIBUTES, the sampler and the exporter's headers from the environment itself.
        named = "OTEL_SERVICE_NAME" in os.environ or "service.name" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        self._resource = Resource.create({} if named else {"service.name": "mcp-sentinel"})
        self._provider = TracerProvider(resource=self._resource, shutdown_on_exit=False)
        self._scope = InstrumentationScope("sentinel")
        self._processor = BatchSpanProcessor(exporter)
        self._queue: queue.Queue[Note | None] = queue.Queue(QUEUE)
        self._warned = 0.0
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def observe_call(self, call: Any) -> None:
        """Take note of one finished call; never waits."""
        try:
            self._queue.put_nowait(note_of(call))
        except queue.Full:
            if time.monotonic() - self._warned > 60:
                self._warned = time.monotonic()
                log.warning("spans are dropped: more calls end than can be told")

    def close(self) -> None:
        """Send what is left, within a bound: the collector may be gone."""
        ender = threading.Thread(target=self._end, name="traces end", daemon=True)
        ender.start()
        ender.join(STOP_SECONDS)

    def _end(self) -> None:
        self._queue.put(None)
        self._thread.join()
        self._processor.shutdown()  # type: ignore[no-untyped-call]

    def _run(self) -> None:
        while (note := self._queue.get()) is not None:
            try:
                span = self.span(note)
                if span is not None:
                    self._processor.on_end(span)
            except Exception:  # a span that cannot be made must not end those after it
                log.exception("a span could not be made")

    def span(self, note: Note) -> ReadableSpan | None:
        """Make the span of a call, or nothing when its trace is not sampled."""
        from opentelemetry import trace
        from opentelemetry.sdk.trace import Event, ReadableSpan
        from opentelemetry.sdk.trace.sampling import Decision

        parent = parent_of(note)
        around = trace.set_span_in_context(trace.NonRecordingSpan(parent)) if parent is not None else None
        ids = self._provider.id_generator
        trace_id = parent.trace_id if parent is not None else ids.generate_trace_id()
        kind = trace.SpanKind.SERVER
        sampled = self._provider.sampler.should_sample(around, trace_id, note.name, kind, note.attributes)
        if sampled.decision is not Decision.RECORD_AND_SAMPLE:
            return None
        # Built as it ended: to begin and end a live one costs three times as much, for nothing.
        events, at = [], note.started
        for stage in note.stages:
            at += stage["us"] * 1000
            events.append(Event(stage["stage"], {"result": stage["result"], "us": stage["us"]}, min(at, note.ended)))
        return ReadableSpan(
            name=note.name,
            context=trace.SpanContext(
                trace_id,
                ids.generate_span_id(),
                is_remote=False,
                trace_flags=trace.TraceFlags(1),
                trace_state=sampled.trace_state,
            ),
            parent=parent,
            resource=self._resource,
            attributes={**note.attributes, **sampled.attributes},
            events=events,
            kind=kind,
            status=trace.Status(trace.StatusCode.ERROR, note.failure) if note.failure else trace.Status(),
            start_time=note.started,
            end_time=note.ended,
            instrumentation_scope=self._scope,
        )


def parent_of(note: Note) -> Any:
    """Read the caller's span out of its traceparent; None when there is none, or it is not well-formed."""
    from opentelemetry import trace

    found = _PARENT.fullmatch(note.parent)
    if found is None:
        return None
    state = None
    with contextlib.suppress(ValueError):
        state = trace.TraceState.from_header([note.state]) if note.state else None
    context = trace.SpanContext(
        int(found[1], 16), int(found[2], 16), is_remote=True,
        trace_flags=trace.TraceFlags(int(found[3], 16)), trace_state=state,
    )  # fmt: skip
    return context if context.is_valid else None
