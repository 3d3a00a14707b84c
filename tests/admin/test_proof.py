"""The most dangerous acts ask for the password again when it was given too long ago; others do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from audit.models import AuditEvent
from core.access import reauthentication
from core.access.actors import Actor
from policies.models import ApiKey, PolicyVersion, Revision, Role
from policies.services import keys as key_acts
from sentinel.models import User
from tests.admin.conftest import PASSWORD, acts

pytestmark = pytest.mark.django_db
ASKED = b'name="own_password"'


def age(client: Client, seconds: float = reauthentication.LASTS.total_seconds() + 1) -> Client:
    """Make the last proof of a session old."""
    session = client.session
    session[reauthentication.KEY] -= int(seconds)
    session.save()
    return client


@pytest.fixture
def boss(as_duty: Callable[..., Client]) -> Client:
    return as_duty("administrator", username="boss")


def held(client: Client, place: str, fields: dict[str, Any], done: Callable[[], bool]) -> None:
    """An act that is free after a log-in, and asks for the password later."""
    age(client)
    assert ASKED in client.post(place, fields).content
    assert not done()
    wrong = client.post(place, {**fields, "own_password": "wrong"})
    assert b"That is not your password." in wrong.content
    assert not done()
    assert client.post(place, {**fields, "own_password": PASSWORD}).status_code == 302
    assert done()
    # Having given it, one is not asked at the next step.
    assert reauthentication.proved(_request(client))


def _request(client: Client) -> Any:
    class Request:
        session = client.session

    return Request()


def keys(*names: str) -> list[ApiKey]:
    return [key_acts.create_key(name=name, role="user", actor=Actor.system()).key for name in names]


def test_revoking_by_filter(boss):
    made = keys("a-1", "a-2", "b-1")
    page = "/admin/policies/apikey/revoke/"
    age(boss)
    assert ASKED in boss.post(page, {"every": "1", "q": "a-"}).content
    chosen = [str(key.pk) for key in made[:2]]
    held(
        boss, page, {"key": chosen, "reason": "leaked"},
        lambda: ApiKey.objects.filter(revoked_at__isnull=False).count() == 2,
    )  # fmt: skip
    assert len(acts("admin.key.revoked")) == 2


def test_one_key_is_revoked_without_delay(boss):
    (key,) = keys("leaked")
    answer = age(boss).post(f"/admin/policies/apikey/{key.pk}/revoke/", {"reason": "leaked"})
    assert answer.status_code == 302
    key.refresh_from_db()
    assert key.revoked_at


def test_a_persons_duties(boss, person):
    vera = person("viewer", username="vera")
    fields = {"username": "vera", "time_zone": "UTC", "is_active": "on", "duties": ["operator"]}
    held(
        boss, f"/admin/sentinel/user/{vera.pk}/change/", fields,
        lambda: list(vera.groups.values_list("name", flat=True)) == ["operator"],
    )  # fmt: skip


def test_a_new_person(boss):
    fields = {
        "username": "new", "time_zone": "UTC", "is_active": "on", "duties": ["viewer"], "password": "a-long-first-password-9",
    }  # fmt: skip
    held(boss, "/admin/sentinel/user/add/", fields, lambda: User.objects.filter(username="new").exists())


def test_a_persons_password(boss, person):
    vera = person("viewer", username="vera")
    fields = {"new_password1": "another-long-one-77", "new_password2": "another-long-one-77"}
    held(
        boss, f"/admin/sentinel/user/{vera.pk}/password/", fields,
        lambda: User.objects.get(username="vera").check_password("another-long-one-77"),
    )  # fmt: skip


def test_a_persons_second_factor(boss, person):
    from django_otp.plugins.otp_totp.models import TOTPDevice

    vera = person("viewer", username="vera")
    TOTPDevice.objects.create(user=vera, name="authenticator", confirmed=True)
    held(
        boss, f"/admin/sentinel/user/{vera.pk}/second-factor/", {"confirmed": "yes"},
        lambda: not vera.totpdevice_set.exists(),
    )  # fmt: skip


def test_erasing_payloads(boss, event, settings, monkeypatch):
    monkeypatch.delitem(settings.DATABASES, "owner")  # its connection would not see this test's transaction
    made = event(request_json={"name": "x", "arguments": {"note": "personal"}})
    page = f"/admin/audit/auditevent/{made.id}/erase/"
    assert b"Erase payloads" in boss.get(f"/admin/audit/auditevent/{made.id}/change/").content
    assert ASKED not in boss.get(page).content

    def gone() -> bool:
        return AuditEvent.objects.get(pk=made.pk).request_json is None

    assert b"This field is required" in boss.post(page, {"reason": " "}).content
    held(boss, page, {"reason": "a request under the law"}, gone)
    record = acts("admin.audit.payload_erased")[0]
    assert (record["key_name"], record["details"]["reason"]) == ("boss", "a request under the law")
    kept = AuditEvent.objects.get(pk=made.pk)
    assert kept.request_digest == made.request_digest
    assert kept.decision == made.decision
    # The log refuses changes as before.
    from django.db import DatabaseError, transaction

    with pytest.raises(DatabaseError), transaction.atomic():
        AuditEvent.objects.filter(pk=made.pk).update(outcome="denied")


def test_going_back_to_a_version(boss):
    boss.post("/admin/policies/role/add/", {"name": "one"})
    Revision.objects.update(txid=0)  # as if the test's transaction had ended
    boss.post("/admin/policies/role/add/", {"name": "two"})
    Revision.objects.update(txid=0)
    older = PolicyVersion.objects.order_by("-number")[1]
    held(
        boss, f"/admin/policies/policyversion/{older.number}/change/", {"confirmed": "yes"},
        lambda: not Role.objects.filter(name="two").exists(),
    )  # fmt: skip


def test_guessing_here_is_throttled_as_at_the_log_in(boss):
    made = keys("a-1")
    fields = {"key": [str(made[0].pk)], "reason": "x"}
    age(boss)
    answers = [
        boss.post("/admin/policies/apikey/revoke/", {**fields, "own_password": f"wrong{n}"}).status_code
        for n in range(6)
    ]
    assert answers[-1] == 429
    assert acts("admin.login.failed")[0]["tool_name"] == "boss"
    assert boss.post("/admin/policies/apikey/revoke/", {**fields, "own_password": PASSWORD}).status_code == 429
    made[0].refresh_from_db()
    assert made[0].revoked_at is None


def test_a_person_without_a_password_logs_in_again(boss):
    user = User.objects.get(username="boss")
    user.set_unusable_password()
    user.save()
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    made = keys("a-1")
    fields = {"key": [str(made[0].pk)], "reason": "x"}
    assert b"log out, log in again" in age(client).post("/admin/policies/apikey/revoke/", fields).content
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    assert client.post("/admin/policies/apikey/revoke/", fields).status_code == 302


def test_a_session_from_before_has_no_proof(boss):
    session = boss.session
    for value in (None, "x", 10**12):
        session[reauthentication.KEY] = value
        assert not reauthentication.proved(type("Request", (), {"session": session})())
