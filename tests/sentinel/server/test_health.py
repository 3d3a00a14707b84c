from __future__ import annotations

import json
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from audit.drain.drainer import Drainer
from sentinel.observability import database_gauges, metrics
from sentinel.observability.gauges import Facts, drainer_facts, journal_facts
from sentinel.server import health, runtime
from sentinel.server.health import Readiness, may_scrape, readyz

STATE = {(name,): 0 for name, how in metrics.STATES.items() if not how.labels} | {("limiter_backend", "machine"): 1}
FINE = {"started": True, "journal_usable": True, "snapshot_age": 0.5}


@pytest.mark.parametrize(
    ("change", "status", "word"),
    [
        ({}, 200, ""),
        ({"started": False}, 503, "starting"),
        ({"stopping": True}, 503, "stopping"),
        ({"journal_usable": False}, 503, "journal"),
        ({"journal_usable": False, "strict": False}, 200, "journal"),
        ({"snapshot_age": None}, 503, "not been read"),
        ({"snapshot_age": 299.0}, 200, ""),
        ({"snapshot_age": 301.0}, 503, "too long"),
    ],
)
def test_readiness_tells_the_truth(change: dict[str, Any], status: int, word: str) -> None:
    told, body = readyz(Readiness(**{**FINE, **change}))
    assert told == status
    assert word in str(body)
    assert (body["status"] == "ready") == (status == 200)


@pytest.mark.parametrize(
    ("headers", "client", "token", "allowed"),
    [
        ([], "127.0.0.1", "", True),
        ([], "::1", "", True),
        ([], "10.0.0.5", "", False),
        ([], "", "", False),
        ([(b"x-forwarded-for", b"6.6.6.6")], "127.0.0.1", "", False),
        ([], "127.0.0.1", "t0ken", False),
        ([(b"authorization", b"Bearer t0ken")], "10.0.0.5", "t0ken", True),
        ([(b"authorization", b"Bearer wrong")], "127.0.0.1", "t0ken", False),
        ([(b"authorization", b"Bearer t0ken"), (b"authorization", b"Bearer x")], "127.0.0.1", "t0ken", False),
    ],
)
def test_who_gets_the_metrics(headers: Any, client: str, token: str, allowed: bool) -> None:
    assert may_scrape(headers, client, token, ()) is allowed


def test_a_trusted_proxy_on_this_machine_is_not_this_machine() -> None:
    assert not may_scrape([], "127.0.0.1", "", (ip_network("127.0.0.1"),))


def told(folder: Path, *collectors: Any) -> dict[str, Any]:
    families = text_string_to_metric_families(metrics.scrape(folder, *collectors).decode())
    return {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_metrics_add_up_over_workers(tmp_path: Path) -> None:
    workers = [metrics.Worker(tmp_path, f"worker-{slot}") for slot in (1, 2)]
    for worker in workers:
        for _ in range(5):
            worker.observe(
                outcome="allowed",
                reason="allowed_by_rule",
                upstream="crm",
                method="tools/call",
                total_us=2600,
                upstream_us=1500,
            )
        worker.observe(outcome="invalid", reason="not_json", upstream="", method="", total_us=90, upstream_us=0)
        worker.observe(
            outcome="denied", reason="no_rule", upstream="crm", method="evil\nmethod", total_us=90, upstream_us=0
        )
    workers[0].observe_limit("machine", "admitted")
    workers[1].observe_limit("machine", "admitted")
    workers[1].observe_limit("machine", "rate_limited")
    crm = {("upstream_in_flight", "crm"): 2, ("upstream_circuit_open", "crm"): 1}
    workers[0].report(STATE | {("open_streams",): 3, ("snapshot_age_seconds",): 250, ("policy_version",): 7} | crm, {})
    workers[1].report(STATE | {("open_streams",): 4, ("snapshot_age_seconds",): 1500, ("policy_version",): 8} | crm, {})
    found = told(tmp_path)
    allowed = ("method=tools/call", "outcome=allowed", "reason=allowed_by_rule", "upstream=crm")
    assert found["sentinel_requests_total", *allowed] == 10
    assert found["sentinel_requests_total", "method=other", "outcome=denied", "reason=no_rule", "upstream=crm"] == 2
    assert sum(value for key, value in found.items() if key[0] == "sentinel_requests_total") == 14
    assert found["sentinel_gateway_seconds_count", "upstream=crm"] == 12
    assert found["sentinel_gateway_seconds_bucket", "le=0.002", "upstream=crm"] == 12
    assert found["sentinel_upstream_seconds_sum", "upstream=crm"] == pytest.approx(0.015)
    assert found["sentinel_upstream_seconds_bucket", "le=0.001", "upstream=crm"] == 0
    assert found["sentinel_upstream_seconds_bucket", "le=+Inf", "upstream=crm"] == 10
    assert found["sentinel_open_streams",] == 7
    assert found["sentinel_snapshot_age_seconds",] == 1.5
    assert found["sentinel_policy_version",] == 7
    assert found["sentinel_worker_up",] == 2
    assert found["sentinel_limiter_decisions_total", "backend=machine", "result=admitted"] == 2
    assert found["sentinel_limiter_decisions_total", "backend=machine", "result=rate_limited"] == 1
    assert found["sentinel_limiter_backend", "backend=machine"] == 2
    assert found["sentinel_upstream_in_flight", "upstream=crm"] == 4
    assert found["sentinel_upstream_circuit_open", "upstream=crm"] == 2
    workers[0].report(STATE | {("open_streams",): 3}, {})
    assert told(tmp_path)["sentinel_upstream_in_flight", "upstream=crm"] == 2
    workers[1].close()
    found = told(tmp_path)
    assert found["sentinel_requests_total", *allowed] == 10
    assert found["sentinel_open_streams",] == 3
    assert found["sentinel_worker_up",] == 1
    workers[0].close()


def test_a_killed_workers_state_is_not_its_successors(tmp_path: Path) -> None:
    killed = metrics.Worker(tmp_path, "worker-1")
    killed.report(STATE | {("open_streams",): 9, ("upstream_circuit_open", "crm"): 1}, {})
    fresh = metrics.Worker(tmp_path, "worker-1")
    assert told(tmp_path)["sentinel_worker_up",] == 0
    fresh.report(STATE | {("open_streams",): 1}, {})
    found = told(tmp_path)
    assert found["sentinel_open_streams",] == 1
    assert found["sentinel_upstream_circuit_open", "upstream=crm"] == 0
    killed.close()
    fresh.close()


def test_nothing_counted_yet_is_still_an_exposition(tmp_path: Path) -> None:
    assert told(tmp_path / "none")["sentinel_worker_up",] == 0


def test_the_journal_and_a_database_that_is_down_are_told(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "segment").write_bytes(b"x" * 5000)
    facts = Facts(
        [*journal_facts(tmp_path / "journal"), *database_gauges.gather("host=/nowhere dbname=none", patience=1)]
    )
    found = told(tmp_path / "metrics", facts)
    assert found["sentinel_journal_bytes",] >= 5000
    assert found["sentinel_journal_free_bytes",] > 0
    assert found["sentinel_database_up",] == 0


def test_the_drainer_is_told_as_far_as_it_told_of_itself(tmp_path: Path) -> None:
    def facts(newest: float | None = None) -> dict[str, float]:
        return {fact.name: fact.value for fact in drainer_facts(tmp_path, newest)}

    assert facts() == {"drainer_up": False}
    drainer = Drainer("host=/nowhere", tmp_path, "i")
    assert drainer.take_lock()
    drainer._write_status([])
    found = facts()
    assert found["drainer_up"] and found["journal_backlog_frames"] == 0 and found["journal_backlog_age_seconds"] == 0
    assert found["drainer_waiting"] and found["drainer_report_age_seconds"] < 5
    status = json.loads((tmp_path / "drainer.json").read_bytes())
    status |= {"state": "ok", "backlog_frames": 7, "oldest_ts": status["ts"] - 100_000_000, "default_rows": 3}
    (tmp_path / "drainer.json").write_text(json.dumps(status))
    found = facts()
    assert found["journal_backlog_age_seconds"] >= 100 and found["default_partition_events"] == 3
    assert not found["drainer_waiting"]
    assert facts(newest=0.5)["journal_backlog_age_seconds"] == 0.5, (
        "under steady traffic something always waits, never long"
    )
    drainer.close()
    assert not facts()["drainer_up"]


async def test_addresses_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def ask(path: str, method: str = "GET", client: str = "127.0.0.1") -> int:
        sent.clear()
        scope = {"method": method, "path": path, "client": (client, 1), "headers": []}
        await health.respond(scope, send, runtime.state, runtime.scrape)
        status: int = sent[0]["status"]
        return status

    assert await ask("/livez") == 200
    assert await ask("/readyz") == 503
    assert await ask("/livez", "POST") == 405
    assert await ask("/metrics", client="10.1.1.1") == 403
