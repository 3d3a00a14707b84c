"""Two at once, outside any test's transaction, as two workers would; what was made is taken away again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection

from audit.models import OutboxEvent, RedactionRule
from core.access.actors import Actor
from policies.models import ApiKey, IdempotentRequest
from policies.services import keys as key_acts
from tests.api.conftest import Caller

pytestmark = pytest.mark.django_db


@pytest.fixture
def racer(db: None) -> Iterator[Caller]:
    """A caller whose key other connections see."""
    (made,) = at_once(lambda: key_acts.create_key(name="racer", actor=Actor.system(), duty="administrator"))
    yield Caller(made.secret)
    at_once(clean)


def clean() -> None:
    ApiKey.objects.filter(name__in=("racer", "raced")).delete()
    RedactionRule.objects.filter(value__startswith="raced").delete()
    IdempotentRequest.objects.all().delete()
    OutboxEvent.objects.all().delete()


def at_once(*acts: Callable[[], Any]) -> list[Any]:
    """Do all at the same time."""
    start, answers = threading.Barrier(len(acts)), []

    def one(act: Callable[[], Any]) -> None:
        start.wait()
        try:
            answers.append(act())
        finally:
            connection.close()

    threads = [threading.Thread(target=one, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return answers


def test_two_creations_at_once_with_one_key_make_one(racer):
    def send():
        return Caller(racer.secret).post(
            "keys/", {"name": "raced", "role": "user"}, headers={"idempotency-key": "race"}
        )

    answers = at_once(*[send] * 4)
    assert [one.status_code for one in answers] == [201] * 4
    assert len({one.data["id"] for one in answers}) == 1 == ApiKey.objects.filter(name="raced").count()
    assert sorted(one.data["key_already_shown"] for one in answers) == [False, True, True, True]


def test_two_writers_with_one_etag_one_wins(racer):
    (made,) = at_once(lambda: Caller(racer.secret).post("keys/", {"name": "raced", "role": "user"}))

    def change(owner):
        tag = {"if-match": made.headers["ETag"]}
        return lambda: Caller(racer.secret).patch(f"keys/{made.data['id']}/", {"owner": owner}, headers=tag)

    answers = at_once(change("one"), change("two"), change("three"))
    assert sorted(one.status_code for one in answers) == [200, 412, 412]


def test_two_writers_of_one_redaction_rule_one_wins(racer):
    place, body = "redaction-rules/", {"kind": "name", "value": "raced badge"}

    def send():
        return Caller(racer.secret).post(place, body, headers={"idempotency-key": "race of rules"})

    made = at_once(*[send] * 3)
    assert [one.status_code for one in made] == [201] * 3 and len({one.data["id"] for one in made}) == 1

    def change(note):
        tag = {"if-match": made[0].headers["ETag"]}
        return lambda: Caller(racer.secret).patch(f"{place}{made[0].data['id']}/", {"note": note}, headers=tag)

    answers = at_once(change("one"), change("two"), change("three"))
    assert sorted(one.status_code for one in answers) == [200, 412, 412]
