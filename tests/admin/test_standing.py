"""What a session opened ends with it: the live view, and an export that is still being sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.sessions.models import Session
from django.http import QueryDict
from django.test import Client
from django.utils import timezone
from django_otp.plugins.otp_totp.models import TOTPDevice

from audit.admin import live
from audit.export import stream as exporting
from audit.filters import Filters
from core.access import sessions
from core.access.actors import Actor
from core.ids import uuid7
from policies.models import ApiKey
from policies.services import keys as key_acts
from sentinel.api import authentication
from sentinel.api.authentication import KeyUser
from sentinel.models import User
from tests.admin.conftest import PASSWORD, acts

pytestmark = pytest.mark.django_db


def changed(client: Client, **fields: Any) -> None:
    User.objects.filter(username="vera").update(**fields)


def new_password(client: Client) -> None:
    user = User.objects.get(username="vera")
    user.set_password("another-horse-battery-8")
    user.save()


def elsewhere(client: Client) -> None:
    """Change one's own password from another session."""
    other = Client()
    other.post("/admin/login/", {"username": "vera", "password": PASSWORD})
    fields = {"old_password": PASSWORD, "new_password1": "another-long-one-77", "new_password2": "another-long-one-77"}
    assert other.post("/admin/password_change/", fields).status_code == 302


ENDS: dict[str, Callable[[Client], Any]] = {
    "log-out": lambda client: client.post("/admin/logout/"),
    "a new password, set by another": new_password,
    "a new password of one's own, from elsewhere": elsewhere,
    "switched off": lambda client: changed(client, is_active=False),
    "no longer let in": lambda client: changed(client, is_staff=False),
    "a duty taken away": lambda client: User.objects.get(username="vera").groups.clear(),
    "the session expires": lambda client: Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1)),
    "the session is deleted": lambda client: Session.objects.all().delete(),
    "a second factor is set up": lambda client: TOTPDevice.objects.create(
        user=User.objects.get(username="vera"), confirmed=True
    ),
}


@pytest.fixture
def client(person: Callable[..., User]) -> Client:
    person("administrator", username="vera")
    client = Client()
    client.post("/admin/login/", {"username": "vera", "password": PASSWORD})
    return client


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "CHECK_SECONDS", 0.0)
    monkeypatch.setattr(live, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(sessions, "EVERY", 0.0)


def follow(session_key: str, act: Callable[[], Any]) -> list[bytes]:
    """Follow the log, do something after a while, and return what came after it."""

    async def run() -> list[bytes]:
        from asgiref.sync import sync_to_async

        said: list[bytes] = []
        stream = live._follow(session_key, Filters.read(QueryDict("")), uuid7(0))
        assert b"following" in await anext(stream)
        waits = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.2)
        assert not waits.done()
        await sync_to_async(act)()
        async with asyncio.timeout(20):
            said.append(await waits)
            said += [piece async for piece in stream]
        return said

    return async_to_sync(run)()


@pytest.mark.parametrize("how", ENDS)
def test_the_live_view_ends(how, client, quick):
    (last,) = follow(client.session.session_key, lambda: ENDS[how](client))
    assert last.startswith(b"event: ended\n")


@pytest.mark.parametrize("how", ENDS)
def test_an_export_that_is_being_sent_is_cut(how, client, quick, event, monkeypatch):
    from audit.export import formats

    for _ in range(3):
        event()
    monkeypatch.setattr(formats, "gathered", lambda pieces: pieces)
    answer = client.post("/admin/audit/auditevent/export/file/", {"format": "ndjson"})
    pieces = iter(answer.streaming_content)
    assert next(pieces)
    ENDS[how](client)
    with pytest.raises(exporting.StreamEnded):
        list(pieces)
    ended = acts("admin.events.export.ended")[0]["details"]
    assert ended["complete"] is False and ended["count"] < 3


def test_a_session_that_stands_is_left_alone(client, quick, event):
    assert sessions.session(client.session.session_key, ("audit.view_auditevent",))
    event()
    answer = client.post("/admin/audit/auditevent/export/file/", {"format": "ndjson"})
    assert answer.getvalue().count(b"\n") == 1
    assert not sessions.session("", ()) and not sessions.session("nonsense", ())


KEY_ENDS: dict[str, Callable[[Any], Any]] = {
    "revoked": lambda key: key_acts.revoke_key(key.pk, reason="x", actor=Actor.system()),
    "expired": lambda key: ApiKey.objects.filter(pk=key.pk).update(
        created_at=timezone.now() - timedelta(days=2), expires_at=timezone.now() - timedelta(days=1)
    ),
    "of another duty": lambda key: ApiKey.objects.filter(pk=key.pk).update(duty="viewer"),
    "rotated": lambda key: key_acts.rotate_key(key.pk, actor=Actor.system()),
    "of other networks": lambda key: ApiKey.objects.filter(pk=key.pk).update(networks=["10.0.0.0/8"]),
    "gone": lambda key: ApiKey.objects.filter(pk=key.pk).delete(),
}


@pytest.mark.parametrize("how", KEY_ENDS)
def test_what_a_key_opened_ends_with_the_key(how, db):
    made = key_acts.create_key(name="programme", duty="auditor", actor=Actor.system())
    sent = authentication.identify(made.secret, "192.0.2.1", "bearer")
    assert sent.key is not None
    user = KeyUser(sent.key, "bearer", sent.generation, "192.0.2.1")
    assert user.stands()
    KEY_ENDS[how](made.key)
    assert not user.stands()


def test_what_the_old_secret_opened_goes_on_during_the_overlap(db):
    made = key_acts.create_key(name="programme", duty="auditor", actor=Actor.system())
    sent = authentication.identify(made.secret, None, "bearer")
    assert sent.key is not None
    key_acts.rotate_key(made.key.pk, actor=Actor.system(), overlap=timedelta(hours=1))
    assert KeyUser(sent.key, "bearer", sent.generation).stands()


def test_the_database_is_asked_seldom(monkeypatch):
    asked: list[float] = []
    stands = sessions.Standing(lambda: not asked.append(0.0))
    assert all(stands() for _ in range(1000))
    assert not asked
