"""The short form: some servers and clients of each kind, directly and through the gateway, must not differ but where it is meant."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.interop import clients_table, compare, install, known, races, refusals, report, roads
from tests.interop.clients_table import CLIENTS, Client
from tests.interop.refusals import Hall, Played
from tests.interop.roads import ROADS, Road, Walked, World
from tests.interop.servers import SERVERS, Server

pytestmark = [pytest.mark.timeout(400), pytest.mark.xdist_group("interop")]

# The older transport's endpoint has tests of its own; `make interop` walks it too.
SHORT = {"stdio", "stdio, a process each", "HTTP", "HTTP, modern", "SSE"}
WALKS = [
    (server, road)
    for server in SERVERS
    if server.short
    for road in roads.taken(server)
    if road.name in SHORT and (road.transport == "stdio" or server.name != "everything")
]
PLAYED = [client for client in CLIENTS if client.short and clients_table.there(client)]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with roads.world() as around:
        yield around


@pytest.fixture(scope="module")
def hall(world: World) -> Iterator[Hall]:
    with refusals.hall(world, PLAYED) as around:
        yield around


@pytest.mark.parametrize("name", list(dict.fromkeys(server.name for server, _ in WALKS)))
def test_a_server_is_the_same_through_the_gateway(world: World, name: str) -> None:
    mine: list[Road] = [road for server, road in WALKS if server.name == name]
    server = next(server for server in SERVERS if server.name == name)
    walked = list(world.walked(server, mine))
    assert [each.road for each in walked] == mine
    for each in walked:
        assert {"initialize", "list", "unknown tool"} <= set(each.direct), each.direct
        unmeant = {
            step: told for step, told in each.differences.items() if not known.why(server.name, each.road.name, step)
        }
        assert not unmeant, (each.road.name, unmeant)


@pytest.mark.parametrize("client", PLAYED, ids=[client.name for client in PLAYED])
def test_a_client_sees_the_same_through_the_gateway_and_is_refused_in_words(hall: Hall, client: Client) -> None:
    over_http = next(hall.played(client))
    assert over_http.differences == {}
    assert "policy" in over_http.denied or "allow" in over_http.denied, over_http.denied
    assert "limit" in over_http.limited, over_http.limited


def test_clients_that_connect_while_a_shared_process_starts(world: World) -> None:
    assert races.rounds(world, 5) == []


@pytest.mark.parametrize("transport", ["http", "stdio"])
def test_a_server_that_does_not_start_is_a_row_that_says_so(world: World, transport: str) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('the disk is on fire')"]
    server = replace(SERVERS[0], name="broken", transports={transport: lambda: command})
    walked = list(world.walked(server))
    assert [each.road for each in walked] == roads.taken(server)
    told = report.unexpected(walked, [])
    assert len(told) == len(walked), told
    assert all("the disk is on fire" in line for line in told), told


def test_a_step_that_has_no_answer_even_directly_is_not_the_same() -> None:
    direct = {"initialize": {"answer": {"id": 1}}, "ping": {"answer": {}}, "call": {"answer": {"no answer": "OSError"}}}
    assert compare.silent(direct) == ["call"]
    assert compare.silent({**direct, "call": {"answer": "no answer"}}) == ["call"]
    assert compare.silent({"initialize": {"answer": {"error": {"code": -32603}}}}) == ["initialize"]
    assert compare.silent({**direct, "call": {"answer": ("no answer", "at once", {})}}) == []  # a cancel has none


def test_the_page_tells_each_difference_once_with_the_roads_it_was_seen_on() -> None:
    server = next(server for server in SERVERS if server.name == "everything")
    direct = {"initialize": {"answer": {"id": 1}}, "list": {"answer": []}, "ping": {"answer": {}}}
    walked = [
        Walked(server, road, direct, direct, {"list": "told", **({"ping": "torn"} if road.transport == "sse" else {})})
        for road in roads.taken(server)
    ]
    client = CLIENTS[0]
    played = [Played(client, transport, {}, "denied", "limited", ()) for transport in client.transports]
    page = report.page(walked, played, (3, ["round 1: no answer"]))
    assert page.count(known.OWN_HELLO) == 1 and f"{known.OWN_HELLO} (on: stdio; stdio by /sse)" in page
    assert "**Not meant: everything, ping: torn** (on: SSE; SSE by /sse)" in page
    assert "1 went wrong (round 1: no answer)" in page
    assert report.unexpected(walked, played)[-1] == "everything, SSE by /sse, ping: torn"


def test_a_difference_is_found_and_told() -> None:
    direct = {
        "initialize": {"answer": {"id": 1, "result": {"at": "2026-01-01T00:00:00Z", "capabilities": {"tools": {}}}}}
    }
    later = {
        "initialize": {"answer": {"id": 7, "result": {"at": "2026-01-02T10:00:00Z", "capabilities": {"tools": {}}}}}
    }
    without = {"initialize": {"answer": {"id": 1, "result": {"at": "2026-01-01T00:00:00Z", "capabilities": {}}}}}
    assert compare.differences(direct, later) == {}
    assert (
        "capabilities.tools: direct {}, through the gateway nothing"
        in compare.differences(direct, without)["initialize"]
    )
    assert compare.differences(
        direct | {"ping": {"answer": {}}}, {**direct, "ping": {"answer": "no answer"}}
    ).keys() == {"ping"}


def test_every_server_and_client_is_walked_on_each_of_its_roads() -> None:
    assert len(SERVERS) >= 15
    assert len({client.name for client in CLIENTS}) >= 12
    assert len({server.name for server in SERVERS}) == len(SERVERS)
    assert {road.transport for road in ROADS} == {"stdio", "http", "sse"}
    assert all(roads.taken(server) for server in SERVERS)
    for each in (*SERVERS, *CLIENTS):
        assert not each.installed or install.version(each.installed, each.package)[0].isdigit()
    assert isinstance(SERVERS[0], Server)
