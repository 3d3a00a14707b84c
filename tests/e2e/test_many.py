"""Many at once: no answer crosses, and the log has each call once."""

from __future__ import annotations

import json
import threading

import pytest

from tests.support.fixtures import Stage
from tests.support.upstream import Exchange, FakeUpstream

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("stage")]


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_two_hundred_clients_with_the_same_ids(stage: Stage, fake: FakeUpstream, era: str) -> None:
    async def jumbled(exchange: Exchange) -> None:
        import asyncio
        import random

        await asyncio.sleep(random.random() * 0.2)
        text = json.dumps(exchange.request.params["arguments"])
        await exchange.result({"content": [{"type": "text", "text": text}]})

    fake.script(jumbled, method="tools/call")
    since = stage.gateway.now()
    crossed: list[str] = []
    failures: list[object] = []

    def one(number: int) -> None:
        try:
            client = stage.client(era=era)
            for turn in range(5):
                mine = {"who": number, "turn": turn}
                answer = client.call("public.echo", mine, rpc_id=1)
                if json.loads(answer.result["content"][0]["text"]) != mine:
                    crossed.append(f"{number}/{turn}")
        except (AssertionError, OSError, ValueError) as problem:
            failures.append(problem)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not crossed
    assert not failures, failures[:3]
    events = stage.gateway.events(since, 1000, timeout=30)
    assert len({event["id"] for event in events}) == 1000
    told = {
        (e["request_json"]["params"]["arguments"]["who"], e["request_json"]["params"]["arguments"]["turn"])
        for e in events
    }
    assert len(told) == 1000


def test_sequence_numbers_have_no_holes(stage: Stage, fake: FakeUpstream) -> None:
    for number in range(30):
        stage.client(("admin", "readonly", None)[number % 3]).call("get_customer")
    events = stage.gateway.events(stage.gateway.now().replace(year=2020))
    by_writer: dict[str, list[int]] = {}
    for event in stage.gateway.export():
        by_writer.setdefault(event["writer"], []).append(event["seq"])
    assert events
    for writer, numbers in by_writer.items():
        assert sorted(numbers) == list(range(min(numbers), max(numbers) + 1)), writer
