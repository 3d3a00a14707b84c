"""The metrics of a running gateway, and that what we ship for Prometheus and Grafana asks for nothing else."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.request import urlopen

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from core.conf.settings import PROJECT
from tests.support.fixtures import Stage
from tests.support.upstream import result

ALERTS = PROJECT / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD = PROJECT / "deploy" / "grafana" / "mcp-sentinel.json"
FROM_PROMETHEUS = {"instance", "le"}

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(stage: Stage) -> tuple[dict[str, set[str]], Samples]:
    """What is exposed: the labels of each sample's name, and the samples."""
    text = urlopen(f"{stage.gateway.url}/metrics", timeout=10).read().decode()
    labels: dict[str, set[str]] = {}
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
            samples[sample.name, frozenset(sample.labels.items())] = sample.value
    return labels, samples


@pytest.fixture(scope="module")
def exposed(stage: Stage) -> tuple[dict[str, set[str]], Samples]:
    """The metrics after some traffic: a call, a limited one, one of a tool that fails, one cut off, a check."""
    stage.fake.forget()
    stage.gateway.manage("upstreams", "check", "fake", check=False)
    client = stage.client().initialize()
    for _ in range(3):
        client.call("limited")
    stage.fake.script(result({"content": [], "isError": True}), method="tools/call", name="public.echo")
    client.call("public.echo", {"text": "x"})
    with socket.create_connection(("127.0.0.1", stage.gateway.port), timeout=5) as broken:
        broken.sendall(b"no request at all\r\n\r\n")
        broken.recv(1000)
    until = time.monotonic() + 15
    while True:
        labels, samples = scrape(stage)
        if {"sentinel_upstream_in_flight", "sentinel_http_refused_total"} <= labels.keys() or time.monotonic() > until:
            return labels, samples
        time.sleep(0.3)


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression of both files, and where it stands."""
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def test_alerts_and_dashboard_ask_only_for_what_is_exposed(exposed: Any) -> None:
    labels, _ = exposed
    unknown, asked = set(), set()
    for place, text in expressions():
        names = set(re.findall(r"\bsentinel_[a-z_]+", text))
        assert names, f"{place} asks for no metric of ours"
        asked |= names
        unknown |= {f"{place}: {name}" for name in names - labels.keys()}
        for name, inside in re.findall(r"\b(sentinel_[a-z_]+)\{([^}]*)\}", text):
            wanted = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", inside)) - FROM_PROMETHEUS
            if name in labels and not wanted <= labels[name]:
                unknown.add(f"{place}: {name} has no {wanted - labels[name]}")
        for inside in re.findall(r"\bby \(([^)]*)\)", text):
            wanted = {word.strip() for word in inside.split(",")} - FROM_PROMETHEUS
            there = set().union(*(labels.get(name, set()) for name in names))
            if there and not wanted <= there:
                unknown.add(f"{place}: grouped by {wanted - there}")
    assert not unknown, "\n".join(sorted(unknown))
    exposed_bases = {
        re.sub(r"_(count|sum|bucket|created)$", "", name) for name in labels if name.startswith("sentinel_")
    }
    asked_bases = {re.sub(r"_(count|sum|bucket)$", "", name) for name in asked}
    assert exposed_bases <= asked_bases, f"nobody looks at {exposed_bases - asked_bases}"


def test_alerts_say_how_bad_it_is_and_what_it_means() -> None:
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["alert"].startswith("Sentinel") and rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"].endswith(".")


def test_panels_lie_side_by_side_and_have_numbers_of_their_own() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        mine = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not mine & cells and at["x"] + at["w"] <= 24, panel["title"]
        cells |= mine


def test_limits_upstreams_and_the_way_into_the_database_are_told(exposed: Any) -> None:
    _, samples = exposed
    machine = ("backend", "machine")
    assert samples["sentinel_limiter_decisions_total", frozenset({machine, ("result", "admitted")})] >= 2
    assert samples["sentinel_limiter_decisions_total", frozenset({machine, ("result", "rate_limited")})] >= 1
    assert samples["sentinel_limiter_backend", frozenset({machine})] == 2
    assert samples["sentinel_upstream_circuit_open", frozenset({("upstream", "fake")})] == 0
    nothing: frozenset[tuple[str, str]] = frozenset()
    for name in ("worker_up", "database_up", "drainer_up"):
        assert samples[f"sentinel_{name}", nothing] >= 1, name
    for name in ("limiter_alarm", "journal_failing", "quarantined_frames", "default_partition_events"):
        assert samples[f"sentinel_{name}", nothing] == 0, name
    assert samples["sentinel_snapshot_age_seconds", nothing] < 30
    assert samples["sentinel_policy_version", nothing] >= 1


def test_no_label_holds_what_a_caller_wrote(stage: Stage) -> None:
    mark = "mark-of-a-caller"
    stage.client().ask(mark, {"name": mark})
    stage.gateway.client(f"mcps_live_{mark}", mark).ask("tools/call", {"name": mark})
    text = urlopen(f"{stage.gateway.url}/metrics", timeout=10).read().decode()
    assert mark not in text and 'method="other"' in text
