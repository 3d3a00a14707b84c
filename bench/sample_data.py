"""Fills the log with real-looking events by COPY, so that pages can be looked at and measured on millions of them.

    make sample-data EVENTS=1000000        (python -m bench.sample_data --events 1000000 --days 14)

Days that have no partition yet are loaded into a table of their own, indexed after loading and attached whole, which is
several times faster than loading through the indexes. Rollups are counted from what was loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

COLUMNS = (
    "id", "ts", "writer", "boot", "seq", "api_key_id", "key_prefix", "key_name", "role", "auth_method", "client_ip",
    "user_agent", "upstream", "protocol_version", "session", "rpc_id", "method", "tool_name", "target_kind", "outcome",
    "reason", "decision", "status_code", "latency_ms", "upstream_ms", "request_json", "response_json", "request_bytes",
    "response_bytes", "truncated", "redactions", "details", "search",
)  # fmt: skip

KEYS = [
    ("ci-bot", "user"), ("support-agent", "user"), ("billing-reconciler", "admin"), ("claude-code-anna", "user"),
    ("claude-code-jonas", "user"), ("cursor-mei", "readonly"), ("nightly-report", "readonly"), ("oncall-assistant", "admin"),
    ("docs-search", "readonly"), ("release-manager", "admin"), ("data-explorer", "user"), ("staging-smoke", "user"),
]  # fmt: skip
TOOLS = {
    "crm": ["list_customers", "get_customer", "update_customer", "delete_customer", "search_notes", "public.echo"],
    "github": ["search_code", "create_issue", "list_pull_requests", "merge_pull_request", "get_file"],
    "warehouse": ["run_query", "list_tables", "describe_table", "export_table"],
    "files": ["read_file", "write_file", "list_directory", "move_file"],
    "mail": ["search_mail", "send_mail", "get_thread"],
}
AGENTS = [
    "claude-code/2.4.1",
    "Cursor/3.2.0",
    "mcp-python/2.0.3",
    "mcp-typescript/1.29.0",
    "codex-cli/1.9.2",
    "vscode/1.121",
]
WEIGHTS = [
    ("allowed", "allowed_by_rule", 200, 90.0), ("denied", "no_rule", 403, 3.2), ("denied", "denied_by_rule", 403, 0.8),
    ("limited", "rate_limited", 429, 1.6), ("unauthenticated", "invalid_credential", 401, 0.7),
    ("unauthenticated", "expired_key", 401, 0.3), ("unauthenticated", "missing_credential", 401, 0.5),
    ("invalid", "invalid_params", 400, 0.5), ("invalid", "duplicate_member", 400, 0.05), ("upstream_error", "upstream_timeout", 504, 0.6),
    ("upstream_error", "upstream_unreachable", 502, 0.4), ("cancelled", "client_gone", 499, 0.5), ("interrupted", "process_died", 0, 0.01),
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shape:
    """Everything of an event but its id, time, number and latency, ready for COPY."""

    before: str
    after: str
    upstream: bool
    base_ms: float


def _quote(value: Any) -> str:
    if value is None:
        return r"\N"
    if isinstance(value, bool):
        return "t" if value else "f"
    return str(value).replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def shapes(rng: random.Random, number: int, keys: list[tuple[str, str, str, str]]) -> list[Shape]:
    """Make a stock of different events to draw from."""
    made = []
    for _ in range(number):
        outcome, reason, status, _weight = rng.choices(WEIGHTS, [entry[3] for entry in WEIGHTS])[0]
        key_id, prefix, name, role = keys[min(int(rng.expovariate(0.28)), len(keys) - 1)]
        upstream = rng.choices(list(TOOLS), [40, 25, 15, 14, 6])[0]
        tool = TOOLS[upstream][min(int(rng.expovariate(0.7)), len(TOOLS[upstream]) - 1)]
        if outcome == "denied":
            tool = rng.choice(["delete_customer", "merge_pull_request", "export_table", "send_mail", tool])
        known = outcome != "unauthenticated"
        modern = rng.random() < 0.4
        arguments = {
            "id": rng.randint(1000, 99999),
            "query": rng.choice(["open orders", "invoice 2026", "contact", "all"]),
        }
        if rng.random() < 0.05:
            arguments["token"] = f"[REDACTED:api_key:{rng.getrandbits(32):08x}]"
        rpc_id = rng.randint(1, 900)
        params = {"name": tool, "arguments": arguments}
        request = {"jsonrpc": "2.0", "id": rpc_id, "method": "tools/call", "params": params}
        result = {"content": [{"type": "text", "text": f"{tool}: {rng.randint(1, 400)} rows"}], "isError": False}
        response = {"jsonrpc": "2.0", "id": rpc_id, "result": result}
        reached = outcome in ("allowed", "upstream_error", "cancelled", "interrupted")
        allow = {"id": rng.randint(1, 9), "name": f"{role} may use {upstream}", "effect": "allow"}
        ways = ["authenticate", "parse", "authorize", "rate-limit", "intent", "forward"]
        settled = {
            "unauthenticated": "authenticate", "invalid": "parse", "denied": "authorize", "limited": "rate-limit"
        }.get(outcome, "forward")  # fmt: skip
        stages = [
            {
                "stage": way,
                "result": "ok" if way != settled or outcome == "allowed" else "refused",
                "us": rng.randint(2, 60),
            }
            for way in ways[: ways.index(settled) + 1]
        ]
        decision = {
            "allowed": reached,
            "stage": settled,
            "reason": reason,
            "rule": allow if reached else None,
            "policy_version": rng.randint(36, 41),
            "observed": [],
            "stages": stages,
        }
        address = f"10.{rng.randint(0, 3)}.{rng.randint(0, 255)}.{rng.randint(1, 254)}"
        before = [
            key_id if known else None, prefix if known else "", name if known else "", role if known else "",
            rng.choice(["bearer", "bearer", "bearer", "header", "query"]) if reason != "missing_credential" else "none",
            address, rng.choice(AGENTS), upstream, "2026-07-28" if modern else "2025-11-25",
            "" if modern or not known else f"{rng.getrandbits(64):016x}", str(rpc_id), "tools/call", tool, "tool",
            outcome, reason, json.dumps(decision, separators=(",", ":")), status,
        ]  # fmt: skip
        search = " ".join(
            filter(None, (before[2], before[3], upstream, "tools/call", tool, outcome, reason, before[1]))
        )
        after = [
            json.dumps(request, separators=(",", ":")),
            json.dumps(response, separators=(",", ":")) if outcome == "allowed" else None,
            rng.randint(180, 900), rng.randint(200, 9000) if outcome == "allowed" else 0, rng.random() < 0.02,
            1 if "token" in arguments else 0, "{}", search,
        ]  # fmt: skip
        base = {"crm": 14.0, "github": 130.0, "warehouse": 420.0, "files": 4.0, "mail": 60.0}[upstream]
        made.append(Shape("\t".join(map(_quote, before)), "\t".join(map(_quote, after)), reached, base))
    return made


def lines(
    rng: random.Random, stock: list[Shape], low: datetime, high: datetime, number: int, seq: int
) -> Iterator[str]:
    """Make `number` lines for COPY, their times spread over [low, high) as a working day would."""
    start = int(low.timestamp() * 1_000_000)
    span = int((high - low).total_seconds() * 1_000_000)
    boot = 1
    moments = sorted(start + int(span * (0.5 + 0.5 * rng.triangular(-1, 1, 0.1))) % span for _ in range(number))
    choice, bits, expo = rng.choice, rng.getrandbits, rng.expovariate
    day = low.date().isoformat() if (high - low) <= timedelta(days=1) else ""
    for place, us in enumerate(moments):
        shape = choice(stock)
        ms, rest = divmod(us, 1000)
        number128 = (ms << 80) | (0x7 << 76) | ((rest * 4096 // 1000 & 0xFFF) << 64) | (0x2 << 62) | bits(62)
        text = f"{number128:032x}"
        if day:
            second, micro = divmod(us - start, 1_000_000)
            minute, second = divmod(second + low.hour * 3600 + low.minute * 60 + low.second, 60)
            stamp = f"{day} {minute // 60:02d}:{minute % 60:02d}:{second:02d}.{micro:06d}+00"
        else:
            stamp = datetime.fromtimestamp(us / 1e6, UTC).isoformat()
        if shape.upstream:
            upstream_ms = shape.base_ms * (0.4 + expo(1.2))
            took = f"{upstream_ms + 0.6 + expo(3):.3f}\t{upstream_ms:.3f}"
        else:
            took = f"{0.2 + expo(4):.3f}\t\\N"
        yield (
            f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}\t{stamp}\tsample\t{boot}\t{seq + place}\t"
            f"{shape.before}\t{took}\t{shape.after}\n"
        )


INDEXES = (
    "ALTER TABLE {t} ADD PRIMARY KEY (id)",
    "CREATE INDEX ON {t} (api_key_id, id)",
    "CREATE INDEX ON {t} (tool_name, id)",
    "CREATE INDEX ON {t} (outcome, id)",
    "CREATE INDEX ON {t} USING gin (search gin_trgm_ops)",
)
ROLLUP = """
INSERT INTO audit_rollup (minute, outcome, reason, upstream, method, tool_name, key_id, key_name, role, requests, events,
  latency_count, latency_sum, upstream_sum, request_bytes, response_bytes)
SELECT date_trunc('minute', ts), outcome, reason, upstream, method,
  CASE WHEN upstream_ms IS NULL THEN '' ELSE coalesce(tool_name, '') END AS tool, coalesce(api_key_id::text, ''), key_name, role,
  sum(count), count(*), count(upstream_ms), coalesce(sum(latency_ms) FILTER (WHERE upstream_ms IS NOT NULL), 0),
  coalesce(sum(upstream_ms), 0), sum(request_bytes), sum(response_bytes)
FROM audit_auditevent WHERE id >= %s AND id < %s AND writer = 'sample'
GROUP BY date_trunc('minute', ts), outcome, reason, upstream, method, tool, coalesce(api_key_id::text, ''), key_name, role
ON CONFLICT DO NOTHING
"""
# The buckets of audit.drain.latencies.
LATENCIES = """
INSERT INTO audit_latency (minute, upstream, bucket, number, least_us, most_us)
SELECT date_trunc('minute', ts), upstream, floor(ln(greatest(round(latency_ms * 1000), 1)) / ln(1.05)), count(*),
  round(min(latency_ms) * 1000), round(max(latency_ms) * 1000)
FROM audit_auditevent WHERE id >= %s AND id < %s AND writer = 'sample' AND upstream_ms IS NOT NULL
GROUP BY 1, 2, 3 ON CONFLICT DO NOTHING
"""


def keys_of(connection: Any, rng: random.Random) -> list[tuple[str, str, str, str]]:
    """Take the keys that exist, then invented ones: (id, prefix, name, role)."""
    rows = connection.execute(
        "SELECT k.id::text, 'mcps_live_' || k.public_id, k.name, r.name FROM policies_apikey k JOIN policies_role r ON r.id = k.role_id"
        " ORDER BY k.created_at LIMIT 30"
    ).fetchall()
    made = [
        (str(uuid.UUID(int=rng.getrandbits(128), version=4)), f"mcps_live_{rng.getrandbits(60):012x}"[:22], name, role)
        for name, role in KEYS
    ]
    return [*rows, *made]


def load(dsn: str, events: int, days: int, *, seed: int = 7, say: Any = print) -> None:
    """Store `events` events over the last `days` days."""
    import psycopg

    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET maintenance_work_mem = '512MB'")  # the text index is built in one pass
        connection.execute("SET synchronous_commit = off")
        fill(connection, events, days, seed=seed, say=say)


def fill(
    connection: Any,
    events: int,
    days: int,
    *,
    until: datetime | None = None,
    seed: int = 7,
    say: Any = print,
    vacuum: bool = True,
) -> None:
    """Store events of the days up to `until` through a connection of psycopg's; without `vacuum` in the caller's transaction."""
    from core.ids import uuid7_floor

    rng = random.Random(seed)
    now = until or datetime.now(UTC)
    began = time.perf_counter()
    stock = shapes(rng, 6_000, keys_of(connection, rng))
    seq = connection.execute(
        "SELECT coalesce(max(seq), 0) + 1 FROM audit_auditevent WHERE writer = 'sample'"
    ).fetchone()[0]
    first = (now - timedelta(days=days - 1)).date()
    for number in range(days):
        day = first + timedelta(days=number)
        low = datetime(day.year, day.month, day.day, tzinfo=UTC)
        high = min(low + timedelta(days=1), now - timedelta(seconds=1))
        part = events // days + (events % days if number == days - 1 else 0)
        if part == 0 or high <= low:
            continue
        name = _load_day(connection, day, lines(rng, stock, low, high, part, seq))
        # Pages of an index are read without the table only where the table is known to be all visible.
        if vacuum:
            connection.execute(f"VACUUM {name}")
        seq += part
        for sql in (ROLLUP, LATENCIES):
            connection.execute(sql, [uuid7_floor(low), uuid7_floor(high + timedelta(seconds=1))])
        say(f"{day}: {part:,} events ({time.perf_counter() - began:.0f} s)")
    connection.execute("ANALYZE audit_auditevent")
    connection.execute("ANALYZE audit_rollup")


def _load_day(connection: Any, day: date, rows: Iterator[str]) -> str:
    name = f"audit_auditevent_p{day:%Y%m%d}"
    new = connection.execute("SELECT to_regclass(%s) IS NULL", [name]).fetchone()[0]
    target = "audit_auditevent"
    if new:
        target = name
        connection.execute(f"CREATE TABLE {name} (LIKE audit_auditevent INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
    with connection.cursor().copy(f"COPY {target} ({', '.join(COLUMNS)}) FROM STDIN") as copy:
        batch: list[str] = []
        for line in rows:
            batch.append(line)
            if len(batch) >= 2_000:
                copy.write("".join(batch))
                batch.clear()
        copy.write("".join(batch))
    if new:
        for sql in INDEXES:
            connection.execute(sql.format(t=name))
        from core.ids import uuid7_floor

        low = datetime(day.year, day.month, day.day, tzinfo=UTC)
        zero = "0000-0000-000000000000"
        ends = [str(uuid7_floor(low + timedelta(days=n)))[:13] + f"-{zero}" for n in (0, 1)]
        bounds = f"FROM ('{ends[0]}') TO ('{ends[1]}')"
        connection.execute(f"ALTER TABLE audit_auditevent ATTACH PARTITION {name} FOR VALUES {bounds}")
        connection.execute(
            f"CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON {name} FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change()"
        )
    return name


def main() -> None:
    """Read the arguments and load."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sentinel.settings")
    import django

    django.setup()
    from django.db import connections

    connections["default"].ensure_connection()  # an embedded server starts, with the tables
    parameters = connections["owner"].get_connection_params()  # partitions are the owner's to make
    import psycopg

    dsn = psycopg.conninfo.make_conninfo(
        **{name: value for name, value in parameters.items() if name in ("dbname", "user", "password", "host", "port")}
    )
    load(dsn, arguments.events, arguments.days, seed=arguments.seed)
    from django.utils import timezone

    from sentinel.site import overview

    overview.read("7d", timezone.now())  # sums the quarter hours now, not at the first look


if __name__ == "__main__":
    main()
