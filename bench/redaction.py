"""What sanitising costs: `python -m bench.redaction`. Best of many short runs, in microseconds of this process's time."""

from __future__ import annotations

import json
import timeit
import uuid
from collections.abc import Callable

import orjson

from audit.events.event import Event
from audit.redaction.sanitizer import Sanitizer

SANITIZER = Sanitizer(b"benchmark" * 4)
DECISION = {
    "allowed": True, "stage": "forward", "reason": "allowed_by_rule", "rule": {"id": 3, "name": "readers may search", "effect": "allow"},
    "policy_version": 4, "observed": [], "stages": [{"stage": stage, "result": "ok", "us": 12} for stage in ("authenticate", "parse", "authorize")],
}  # fmt: skip
KEY = uuid.UUID("018f6b2e-7a3c-7000-8000-0123456789ab")


def call(size: int, extra: dict[str, object] | None = None) -> bytes:
    """A tool call of about so many bytes, in words that say nothing."""
    words = "what was said about the region in the last meeting of the board and what will be done "
    arguments = {"query": "quarterly report", "limit": 20, "filters": {"lang": "en", "year": 2025}, **(extra or {})}
    frame = {
        "jsonrpc": "2.0",
        "id": 12,
        "method": "tools/call",
        "params": {"name": "search_documents", "arguments": arguments, "_meta": {"progressToken": 1}},
    }
    empty = len(orjson.dumps(frame)) + 20
    notes = [words * 2 for _ in range(max(0, size - empty) // (2 * len(words) + 3))]
    arguments["notes"] = notes or words[: max(1, size - empty)]
    return orjson.dumps(frame)


def best(work: Callable[[], object], number: int = 200, repeat: int = 60) -> float:
    work()
    return min(timeit.repeat(work, number=number, repeat=repeat)) / number * 1e6


def event(payload: object) -> Event:
    return Event(
        sanitizer=SANITIZER, api_key_id=KEY, key_prefix="mcps_live_AbCdEf123456", key_name="demo", role="reader", auth_method="bearer", client_ip="127.0.0.1",
        user_agent="python-httpx/0.27", upstream="fake", protocol_version="2025-11-25", rpc_id="12", method="tools/call", tool_name="search_documents", target_kind="tool",
        outcome="allowed", reason="allowed_by_rule", decision=DECISION, status_code=200, latency_ms=3.2, upstream_ms=1.2, request_json=payload,
    )  # fmt: skip


def main() -> None:
    """Print one row per case."""
    secret = {"connection": {"user": "ann", "password": "hunter2", "url": "https://h/?token=abc123"}}
    print(f"{'payload':34}{'bytes':>8}{'sanitised':>12}{'full walk':>12}{'parse + write alone':>22}")
    for name, size, extra in (
        ("nothing suspicious", 512, None),
        ("three secrets", 512, secret),
        ("nothing suspicious", 2_048, None),
        ("three secrets", 2_048, secret),
        ("nothing suspicious", 65_536, None),
        ("three secrets", 65_536, secret),
    ):
        raw = call(size, extra)
        number = max(2, 100_000 // len(raw))
        value = orjson.loads(raw)
        cost = best(lambda raw=raw: SANITIZER.payload(raw=raw), number)
        walk = best(lambda value=value: SANITIZER.redactor.value(value), max(2, number // 10), 30)
        least = best(lambda raw=raw: orjson.dumps(orjson.loads(raw)), number)
        print(f"{name:34}{len(raw):>8}{cost:>12.1f}{walk:>12.1f}{least:>22.1f}")
    raw = call(512)
    payload = SANITIZER.payload(raw=raw)
    print(f"{'keyed digest':34}{len(raw):>8}{best(lambda: SANITIZER.digest(raw)):>12.1f}")
    print(f"{'event, of a sanitised payload':34}{'':>8}{best(lambda: event(payload)):>12.1f}")
    print(
        f"{'event, to bytes of the journal':34}{'':>8}{best(lambda: orjson.dumps(event(payload).as_record())):>12.1f}"
    )
    record = json.loads(orjson.dumps(event(payload).as_record()))
    print(
        f"{'event, back from the journal':34}{'':>8}{best(lambda: Event(again=True, sanitizer=SANITIZER, **record)):>12.1f}"
    )


if __name__ == "__main__":
    main()
