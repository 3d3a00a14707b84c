from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from core.conf.settings import PROJECT
from core.ids import uuid7
from sentinel.observability import tracing

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


def call(*, headers: dict[bytes, bytes] | None = None, meta: dict[str, Any] | None = None, **more: Any) -> Any:
    """A finished call, as far as a span looks at it."""
    seq, method = more.pop("seq", 7), more.pop("method", "tools/call")
    event = SimpleNamespace(seq=seq, tool_name="list_customers", target_kind="tool", protocol_version="2026-07-28")
    values = {
        "id": uuid7(), "started_ns": time.perf_counter_ns() - 5_000_000, "outcome": "allowed", "reason": "allowed_by_rule",
        "verb": "POST", "answer_status": 200, "policy_version": 3, "slug": "crm", "spec": object(), "upstream_ns": 3_000_000,
        "stages": [{"stage": "authenticate", "result": "ok", "us": 40}, {"stage": "parse", "result": "ok", "us": 60}],
        "event": event, "message": SimpleNamespace(method=method, meta=meta or {}),
        "header": lambda name: (headers or {}).get(name, b""),
        "header_values": lambda name: [headers[name]] if name in (headers or {}) else [],
    }  # fmt: skip
    return SimpleNamespace(**{**values, **more})


@pytest.fixture
def told() -> Any:
    """Spans told to memory: call it with finished calls, it gives their spans."""
    exporter = InMemorySpanExporter()
    spans = tracing.Spans(exporter)

    def tell(*calls: Any) -> list[Any]:
        for one in calls:
            spans.observe_call(one)
        spans.close()
        return list(exporter.get_finished_spans())

    yield tell
    spans.close()


def test_a_call_is_a_span_without_payloads(told: Any) -> None:
    one = call()
    (span,) = told(one)
    assert span.name == "tools/call" and span.kind.name == "SERVER" and span.parent is None
    assert 5_000_000 <= span.end_time - span.start_time < 5_000_000_000
    assert abs(span.end_time - time.time_ns()) < 10_000_000_000
    assert dict(span.attributes) == {
        "sentinel.outcome": "allowed", "sentinel.reason": "allowed_by_rule", "sentinel.policy_version": 3,
        "sentinel.upstream": "crm", "sentinel.upstream_ms": 3.0, "sentinel.audit_id": str(one.id),
        "sentinel.target.kind": "tool", "sentinel.target.name": "list_customers", "mcp.method.name": "tools/call",
        "mcp.protocol.version": "2026-07-28", "http.request.method": "POST", "http.response.status_code": 200,
    }  # fmt: skip
    assert [(event.name, dict(event.attributes)) for event in span.events] == [
        ("authenticate", {"result": "ok", "us": 40}),
        ("parse", {"result": "ok", "us": 60}),
    ]
    assert span.events[1].timestamp - span.start_time == 100_000
    assert span.resource.attributes["service.name"] == "mcp-sentinel"


@pytest.mark.parametrize(
    ("headers", "meta", "trace"),
    [
        ({b"traceparent": PARENT.encode()}, {}, TRACE),
        ({}, {"traceparent": PARENT}, TRACE),
        ({b"traceparent": PARENT.replace("4bf9", "aaaa").encode()}, {"traceparent": PARENT}, TRACE),
        ({b"traceparent": PARENT.encode()}, {"traceparent": 5}, TRACE),
        ({b"traceparent": PARENT.encode()}, {"traceparent": "nonsense"}, ""),
        ({b"traceparent": PARENT.upper().encode()}, {}, ""),
        ({b"traceparent": f"ff-{TRACE}-{SPAN}-01".encode()}, {}, ""),
        ({b"traceparent": f"00-{'0' * 32}-{SPAN}-01".encode()}, {}, ""),
        ({b"traceparent": f"00-{TRACE}-{'0' * 16}-01".encode()}, {}, ""),
        ({b"traceparent": b"\xff" * 5000}, {}, ""),
    ],
)
def test_the_callers_trace_goes_on(told: Any, headers: Any, meta: Any, trace: str) -> None:
    (span,) = told(call(headers=headers, meta=meta))
    if trace:
        assert (
            f"{span.context.trace_id:032x}" == trace and f"{span.parent.span_id:016x}" == SPAN and span.parent.is_remote
        )
    else:
        assert span.parent is None and span.context.trace_id


def test_a_trace_that_its_caller_does_not_sample_is_not_told(told: Any) -> None:
    assert told(call(headers={b"traceparent": PARENT[:-1].encode() + b"0"})) == []


def test_the_callers_trace_state_is_kept(told: Any) -> None:
    headers = {b"traceparent": PARENT.encode(), b"tracestate": b"vendor=1,other=2"}
    bad = {b"traceparent": PARENT.encode(), b"tracestate": b"\x00===,,"}
    kept, dropped = told(call(headers=headers), call(headers=bad))
    assert kept.parent.trace_state["vendor"] == "1" and not dropped.parent.trace_state


def test_refusals_and_failures_say_so(told: Any) -> None:
    refused = call(outcome="denied", reason="no_rule", answer_status=403, upstream_ns=0)
    failed = call(outcome="upstream_error", reason="upstream_timeout", answer_status=504)
    flood = call(outcome="unauthenticated", reason="missing_credential", answer_status=401, seq=0, spec=None)
    odd = call(method="made/up", event=None)
    unread = call(message=None)
    spans = told(refused, failed, flood, odd, unread)
    assert spans[0].status.status_code is StatusCode.UNSET and spans[0].attributes["error.type"] == "no_rule"
    assert spans[1].status.status_code is StatusCode.ERROR and spans[1].status.description == "upstream_timeout"
    assert "sentinel.audit_id" not in spans[2].attributes and "sentinel.upstream" not in spans[2].attributes
    assert spans[3].name == "other" and spans[4].name == "POST"


class Stuck(SpanExporter):
    """A collector that does not answer."""

    def export(self, spans: Any) -> SpanExportResult:
        time.sleep(60)
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        pass


def test_a_collector_that_hangs_stops_neither_calls_nor_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "STOP_SECONDS", 0.5)
    monkeypatch.setattr(tracing, "QUEUE", 10)
    spans = tracing.Spans(Stuck())
    begun = time.monotonic()
    one = call()
    for _ in range(3000):
        spans.observe_call(one)
    spans.close()
    assert time.monotonic() - begun < 10


def test_nothing_is_begun_when_it_is_off() -> None:
    assert tracing.start(SimpleNamespace(otel_endpoint="")) is None  # type: ignore[arg-type]


def test_a_start_without_the_packages_is_refused_in_one_line(tmp_path: Path) -> None:
    code = (
        "import runpy, sys; sys.modules['opentelemetry'] = None;"
        "sys.argv = ['manage.py', 'serve', '--port', '0']; runpy.run_path('manage.py', run_name='__main__')"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
    environment |= {"SENTINEL_VAR": str(tmp_path / "var"), "SENTINEL_OTEL_ENDPOINT": "http://127.0.0.1:4318"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "SENTINEL_OTEL_ENDPOINT" in done.stderr and "install-otel" in done.stderr
