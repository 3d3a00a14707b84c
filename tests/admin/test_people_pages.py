"""People: added, changed and switched off, with the acting person's password asked again."""

from __future__ import annotations

import pytest

from sentinel.models import User
from tests.admin.conftest import PASSWORD, acts

pytestmark = pytest.mark.django_db
USERS = "/admin/sentinel/user/"
FIELDS = {
    "username": "new",
    "time_zone": "Europe/Berlin",
    "duties": ["viewer", "auditor"],
    "is_active": "on",
    "password": "a-long-first-password-9",
}


def test_a_person_is_added_with_duties(as_duty):
    client = as_duty("administrator")
    assert b"That is not your password" in client.post(f"{USERS}add/", {**FIELDS, "own_password": "wrong"}).content
    assert not User.objects.filter(username="new").exists()
    assert client.post(f"{USERS}add/", {**FIELDS, "own_password": PASSWORD}).status_code == 302
    user = User.objects.get(username="new")
    assert user.check_password("a-long-first-password-9")
    assert user.is_staff
    assert not user.is_superuser
    assert set(user.groups.values_list("name", flat=True)) == {"viewer", "auditor"}
    record = acts("admin.user.created")[0]
    assert record["details"]["after"]["duties"] == ["auditor", "viewer"]
    assert "a-long-first-password-9" not in repr(acts())


@pytest.mark.parametrize("password", ["short", "password123456", "12345678901234"])
def test_weak_passwords_are_refused(as_duty, password):
    answer = as_duty("administrator").post(f"{USERS}add/", {**FIELDS, "password": password, "own_password": PASSWORD})
    assert answer.status_code == 200
    assert not User.objects.filter(username="new").exists()


def test_duties_change_and_people_are_switched_off(as_duty, person):
    client = as_duty("administrator")
    vera = person("viewer", username="vera")
    fields = {"username": "vera", "time_zone": "UTC", "duties": ["operator"], "own_password": PASSWORD}
    assert client.post(f"{USERS}{vera.pk}/change/", fields).status_code == 302
    vera.refresh_from_db()
    assert not vera.is_active
    assert list(vera.groups.values_list("name", flat=True)) == ["operator"]
    record = acts("admin.user.changed")[0]
    assert (record["details"]["before"]["duties"], record["details"]["after"]["duties"]) == (["viewer"], ["operator"])


def test_nobody_takes_their_own_duties_away(as_duty):
    client = as_duty("administrator", username="me")
    me = User.objects.get(username="me")
    answer = client.post(
        f"{USERS}{me.pk}/change/",
        {"username": "me", "time_zone": "UTC", "is_active": "on", "duties": ["viewer"], "own_password": PASSWORD},
    )
    assert b"ask another administrator" in answer.content


def test_a_password_is_set_and_sessions_end(as_duty, person):
    from django.test import Client

    client = as_duty("administrator")
    vera = person("viewer", username="vera")
    other = Client()
    other.force_login(vera, backend="django.contrib.auth.backends.ModelBackend")
    fields = {"new_password1": "another-long-one-77", "new_password2": "another-long-one-77", "own_password": PASSWORD}
    assert client.post(f"{USERS}{vera.pk}/password/", fields).status_code == 302
    assert other.get("/admin/").status_code == 302
    assert acts("admin.user.password_set")
