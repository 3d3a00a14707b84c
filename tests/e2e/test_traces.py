"""Spans of a running gateway, as a collector receives them."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support import fixtures
from tests.support.fixtures import Stage

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


class Collector:
    """Takes OTLP over HTTP and keeps the spans."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        self.raw = b""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                outer.take(self.path, body)
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, path: str, body: bytes) -> None:
        assert path == "/v1/traces"
        self.raw += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    told = {one.key: one.value.string_value or one.value.int_value for one in span.attributes}
                    self.spans.append(
                        {
                            "name": span.name, "trace": span.trace_id.hex(), "parent": span.parent_span_id.hex(),
                            "events": [event.name for event in span.events], **told,
                        }
                    )  # fmt: skip

    def wait(self, **match: Any) -> dict[str, Any]:
        """The span with these attributes (`__` for a point)."""
        wanted = {name.replace("__", "."): value for name, value in match.items()}
        until = time.monotonic() + 20
        while True:
            for span in list(self.spans):
                if all(span.get(name) == value for name, value in wanted.items()):
                    return span
            assert time.monotonic() < until, f"no span {wanted} among {self.spans}"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """A collector."""
    made = Collector()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(scope="module")
def traced(collector: Collector) -> Iterator[Stage]:
    """A gateway that tells it its calls."""
    address = f"http://127.0.0.1:{collector.server.server_port}"
    yield from fixtures.stage(SENTINEL_OTEL_ENDPOINT=address, OTEL_BSP_SCHEDULE_DELAY="200")


def test_a_call_is_told_with_its_trace_and_its_event(traced: Stage, collector: Collector) -> None:
    since = traced.gateway.now()
    client = traced.client()
    client.ask(
        "tools/call",
        {"name": "list_customers", "arguments": {"secret": "a-payload-mark"}},
        headers={"traceparent": PARENT},
    )
    event = traced.gateway.event(since, method="tools/call")
    span = collector.wait(sentinel__audit_id=event["id"])
    assert span["name"] == "tools/call" and span["trace"] == TRACE == event["trace_id"] and span["parent"] == SPAN
    assert span["sentinel.outcome"] == "allowed" and span["sentinel.upstream"] == "fake"
    assert span["sentinel.target.name"] == "list_customers" and span["http.response.status_code"] == 200
    assert span["events"][:2] == ["authenticate", "parse"]
    assert b"a-payload-mark" not in collector.raw


def test_the_trace_in_a_message_goes_on_too(traced: Stage, collector: Collector) -> None:
    other = "a" * 32
    since = traced.gateway.now()
    meta = {"traceparent": f"00-{other}-{SPAN}-01"}
    traced.client("readonly").ask("tools/call", {"name": "delete_customer", "arguments": {}, "_meta": meta})
    event = traced.gateway.event(since, method="tools/call")
    span = collector.wait(sentinel__audit_id=event["id"])
    assert span["trace"] == other == event["trace_id"] and span["sentinel.outcome"] == "denied"
    assert span["error.type"] == event["reason"]
