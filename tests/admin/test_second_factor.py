"""Whoever has a second factor gives it at every log-in and on every door; its recovery codes are good once."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django_otp.oath import totp
from django_otp.plugins.otp_totp.models import TOTPDevice

from audit.models import OutboxEvent
from core.access import reauthentication
from policies.services import keys as key_acts
from sentinel.models import RecoveryCode, User
from sentinel.users import second_factor
from tests.admin.conftest import PASSWORD, acts

pytestmark = pytest.mark.django_db
ASK = "/admin/second-factor/"
CODES = f"{ASK}codes/"


def log_in(username: str = "vera", **fields: Any) -> Client:
    client = Client()
    answer = client.post("/admin/login/", {"username": username, "password": PASSWORD, "next": "/admin/", **fields})
    assert answer.status_code == 302
    return client


def code(user: User | str = "vera", *, later: int = 0) -> str:
    """Return a code that was not used yet: the throttle and the last step are forgotten, as by the passing of time."""
    name = user if isinstance(user, str) else user.username
    device = TOTPDevice.objects.get(user__username=name)
    device.last_t = -1
    device.throttle_reset()
    return f"{totp(device.bin_key, drift=later):06d}"


def enrol(client: Client, username: str = "vera") -> list[str]:
    """Set up a second factor; return the recovery codes that the page shows."""
    client.get(ASK)
    answer = client.post(ASK, {"token": code(username)})
    assert (answer.status_code, answer["Location"]) == (302, CODES)
    return shown(client)


def shown(client: Client) -> list[str]:
    return re.findall(r"<li><code>([a-z0-9-]+)</code>", client.get(CODES).content.decode())


@pytest.fixture
def vera(person: Callable[..., User]) -> User:
    return person("administrator", username="vera")


@pytest.fixture
def enrolled(vera: User) -> list[str]:
    return enrol(log_in())


DOORS = (
    "/admin/",
    "/admin/audit/auditevent/",
    "/admin/audit/auditevent/live/",
    "/admin/audit/auditevent/live/stream/",
    "/admin/audit/auditevent/export/",
    "/admin/password_change/",
    "/admin/preferences/",
    "/admin/health/",
    "/admin/sentinel/user/",
    "/admin/policies/apikey/add/",
    CODES,
    f"{CODES}file/",
    f"{ASK}off/",
    "/admin/nowhere/",
)


@pytest.mark.parametrize("door", DOORS)
def test_the_password_alone_opens_nothing(enrolled, door):
    client = log_in()
    for answer in (client.get(door), client.post(door, {"theme": "dark", "time_zone": "UTC", "token": "1"})):
        assert (answer.status_code, answer["Location"]) == (302, ASK)
    assert User.objects.get(username="vera").theme == "auto"


@pytest.mark.parametrize("door", ["/api/v1/events/", "/api/v1/events/export/", "/api/v1/keys/", "/api/schema/"])
def test_nor_does_it_open_the_api(enrolled, door):
    client = log_in()
    answer = client.get(door)
    assert (answer.status_code, answer.json()["code"]) == (403, "second_factor_required")
    client.post(ASK, {"token": code()})
    assert client.get(door).status_code == 200


def test_nor_the_pages_of_the_api(enrolled):
    client = log_in()
    answer = client.get("/api/docs/", headers={"accept": "text/html"})
    assert (answer.status_code, answer["Location"]) == (302, ASK)
    client.post(ASK, {"token": code()})
    assert client.get("/api/docs/", headers={"accept": "text/html"}).status_code == 200


def test_a_code_opens_what_was_asked_for_under_a_new_session(enrolled):
    client = log_in()
    client.get("/admin/audit/auditevent/?outcome=denied")
    before = client.session.session_key
    page = client.get(ASK).content.decode()
    assert "Recovery" not in page and "sidenav" not in page and 'class="secret"' not in page
    answer = client.post(ASK, {"token": code()})
    assert (answer.status_code, answer["Location"]) == (302, "/admin/audit/auditevent/?outcome=denied")
    assert client.session.session_key != before
    assert client.get(answer["Location"]).status_code == 200
    (given,) = acts("admin.second_factor.given")
    assert given["tool_name"] == "vera"
    assert [act["details"].get("second_factor") for act in acts("admin.login")] == [None, "asked for"]


def test_a_code_is_good_once_and_for_its_own_device(enrolled, person):
    person("administrator", username="mallory")
    enrol(log_in("mallory"), "mallory")
    used = code()
    assert log_in().post(ASK, {"token": used}).status_code == 302
    assert b"is not right" in log_in().post(ASK, {"token": used}).content
    assert b"is not right" in log_in("mallory").post(ASK, {"token": code()}).content


@pytest.mark.parametrize("drift", [-1, 1])
def test_a_clock_may_be_a_step_off(enrolled, drift):
    assert log_in().post(ASK, {"token": code(later=drift)}).status_code == 302


def test_a_clock_may_not_be_further_off(enrolled):
    for drift in (-3, 3):
        assert log_in().post(ASK, {"token": code(later=drift)}).status_code == 200


def test_whoever_has_a_factor_cannot_set_up_another_with_the_password_alone(enrolled):
    client = log_in()
    device = TOTPDevice.objects.create(user=User.objects.get(username="vera"), name="mine", confirmed=False)
    assert client.post(ASK, {"token": f"{totp(device.bin_key):06d}"}).status_code == 200
    device.refresh_from_db()
    assert not device.confirmed and client.get("/admin/")["Location"] == ASK


def test_a_factor_that_is_only_begun_is_not_asked_for(vera):
    log_in().get(ASK)
    assert TOTPDevice.objects.filter(confirmed=False).exists()
    assert log_in().get("/admin/").status_code == 200


def test_another_session_owes_it_as_soon_as_it_is_set_up(vera):
    elsewhere, here = log_in(), log_in()
    assert elsewhere.get("/admin/").status_code == 200
    enrol(here)
    assert here.get("/admin/").status_code == 200
    assert elsewhere.get("/admin/")["Location"] == ASK


# -- guessing ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["000000", "wxyz-wxyz-wxyz-wxyz", "", "\0", "١٢٣٤٥٦", "\ud800", "9" * 5000, "-1"])
def test_wrong_codes_are_told_throttled_and_recorded(enrolled, wrong):
    client = log_in()
    code()
    data = {"token": wrong.encode("utf-8", "surrogatepass").decode("utf-8", "replace")}
    assert b"is not right" in client.post(ASK, data).content
    again = client.post(ASK, data)
    assert again.status_code == 429 and int(again["Retry-After"]) >= 1
    failed = acts("admin.second_factor.failed")
    assert [act["status_code"] for act in failed] == [401, 429]
    assert "wxyz" not in repr(failed) and "99999" not in repr(failed)
    assert client.get("/admin/")["Location"] == ASK


def test_a_right_code_of_either_kind_waits_too(enrolled):
    client = log_in()
    right = code()
    TOTPDevice.objects.get().throttle_increment()
    for token in (right, enrolled[0]):
        assert client.post(ASK, {"token": token}).status_code == 429
    assert second_factor.left(User.objects.get(username="vera")) == second_factor.CODES


# -- recovery codes ------------------------------------------------------------------------------------------------------


def test_recovery_codes_are_shown_once_and_kept_as_digests(vera):
    client = log_in()
    codes = enrol(client)
    assert len(set(codes)) == second_factor.CODES
    assert not shown(client)
    assert b"own_password" in client.get(CODES).content
    kept = repr([vars(row) for row in RecoveryCode.objects.all()]) + repr(client.session.items()) + repr(acts())
    assert not any(one in kept or one.replace("-", "") in kept for one in codes)


def test_on_their_way_to_the_page_they_are_sealed(vera):
    client = log_in()
    client.get(ASK)
    client.post(ASK, {"token": code()})
    waiting = repr(dict(client.session.items()))
    codes = shown(client)
    assert len(codes) == second_factor.CODES
    assert not any(one in waiting or one.replace("-", "") in waiting for one in codes)


@pytest.mark.parametrize("spelling", [str, str.upper, lambda text: text.replace("-", " "), lambda text: f" {text}\t"])
def test_each_lets_in_once(enrolled, spelling):
    client = log_in()
    assert client.post(ASK, {"token": spelling(enrolled[3])}).status_code == 302
    assert client.get("/admin/").status_code == 200
    (used,) = acts("admin.second_factor.recovery_code_used")
    assert used["details"]["left"] == second_factor.CODES - 1
    assert f"{second_factor.CODES - 1} recovery codes are left".encode() in client.get(ASK).content
    assert log_in().post(ASK, {"token": enrolled[3]}).status_code == 200
    code()
    assert log_in().post(ASK, {"token": enrolled[4]}).status_code == 302


def test_they_are_nobody_elses(enrolled, person):
    person("administrator", username="mallory")
    enrol(log_in("mallory"), "mallory")
    assert log_in("mallory").post(ASK, {"token": enrolled[0]}).status_code == 200


def test_new_ones_need_password_and_code_and_end_the_old(enrolled):
    client = log_in()
    client.post(ASK, {"token": code()})
    for fields in ({}, {"own_password": PASSWORD}, {"own_code": code()}, {"own_password": "x", "own_code": code()}):
        assert client.post(CODES, fields).status_code == 200
        assert not acts("admin.second_factor.codes_made")
    answer = client.post(CODES, {"own_password": PASSWORD, "own_code": code()})
    assert (answer.status_code, answer["Location"]) == (302, CODES)
    made = shown(client)
    assert len(made) == second_factor.CODES and not set(made) & set(enrolled)
    assert acts("admin.second_factor.codes_made")
    assert log_in().post(ASK, {"token": enrolled[0]}).status_code == 200
    code()
    assert log_in().post(ASK, {"token": made[0]}).status_code == 302


def test_they_are_given_as_a_file_to_whoever_has_them(enrolled):
    client = log_in()
    client.post(ASK, {"token": code()})
    answer = client.post(f"{CODES}file/", {"code": enrolled})
    assert answer["Content-Disposition"].startswith("attachment") and "no-store" in answer["Cache-Control"]
    assert all(one in answer.content.decode() for one in enrolled)
    for codes in ([], ["<script>alert(1)</script>"], [*enrolled[:2], "abcd-abcd-abcd-abcd"]):
        assert client.post(f"{CODES}file/", {"code": codes}).status_code == 403


# -- taking it away ------------------------------------------------------------------------------------------------------


def test_it_is_turned_off_only_by_giving_it(enrolled):
    client = log_in()
    client.post(ASK, {"token": code()})
    for fields in ({}, {"own_password": PASSWORD}, {"own_password": PASSWORD, "own_code": "000000"}):
        client.post(f"{ASK}off/", fields)
        assert TOTPDevice.objects.filter(confirmed=True).exists()
    assert client.post(f"{ASK}off/", {"own_password": PASSWORD, "own_code": code()}).status_code == 302
    assert not TOTPDevice.objects.filter(confirmed=True).exists() and not RecoveryCode.objects.exists()
    assert acts("admin.second_factor.turned_off")
    assert log_in().get("/admin/").status_code == 200


def test_ones_own_is_not_reset_like_anothers(enrolled, vera):
    client = log_in()
    client.post(ASK, {"token": code()})
    answer = client.post(f"/admin/sentinel/user/{vera.pk}/second-factor/", {"confirmed": "yes"})
    assert answer["Location"] == f"{ASK}off/"
    assert TOTPDevice.objects.filter(confirmed=True).exists()


def test_an_administrator_resets_anothers(enrolled, vera, admin_client):
    answer = admin_client.post(
        f"/admin/sentinel/user/{vera.pk}/second-factor/", {"confirmed": "yes", "own_password": PASSWORD}
    )
    assert answer.status_code == 302
    assert not TOTPDevice.objects.exists() and not RecoveryCode.objects.exists()
    assert acts("admin.user.second_factor_reset")[0]["tool_name"] == "vera"


def test_a_command_resets_it(enrolled):
    told = StringIO()
    call_command("secondfactor", "list", stdout=told)
    assert "10 recovery codes left" in told.getvalue()
    call_command("secondfactor", "reset", "vera", stdout=told)
    (act,) = acts("admin.user.second_factor_reset")
    assert (act["tool_name"], act["details"]["actor"]["kind"]) == ("vera", "system")
    assert log_in().get("/admin/").status_code == 200
    for name in ("vera", "nobody", "a\0b"):
        with pytest.raises(CommandError):
            call_command("secondfactor", "reset", name)


# -- asked again ---------------------------------------------------------------------------------------------------------


def aged(client: Client) -> Client:
    session = client.session
    session[reauthentication.KEY] = int(time.time() - reauthentication.LASTS.total_seconds() - 1)
    session.save()
    return client


def test_dangerous_acts_ask_for_both_again(enrolled):
    from core.access.actors import Actor

    made = key_acts.create_key(name="a", role="user", actor=Actor.system()).key
    other = key_acts.create_key(name="b", role="user", actor=Actor.system()).key
    fields = {"key": [str(made.pk), str(other.pk)], "reason": "leaked"}
    client = log_in()
    client.post(ASK, {"token": code()})
    aged(client)
    page = "/admin/policies/apikey/revoke/"
    assert b'name="own_code"' in client.post(page, fields).content
    for given in ({"own_password": PASSWORD}, {"own_password": PASSWORD, "own_code": "000000"}, {"own_code": code()}):
        assert client.post(page, {**fields, **given}).status_code == 200
    made.refresh_from_db()
    assert made.revoked_at is None
    assert client.post(page, {**fields, "own_password": PASSWORD, "own_code": code()}).status_code == 302
    made.refresh_from_db()
    assert made.revoked_at


NEW = {"new_password1": "another-long-one-77", "new_password2": "another-long-one-77"}
CHANGE = "/admin/password_change/"


def test_ones_own_password_changes_with_an_event_and_ends_other_sessions(person):
    person("viewer", username="vera")
    here, elsewhere = log_in(), log_in()
    assert here.post(CHANGE, {"old_password": PASSWORD, **NEW}).status_code == 302
    (act,) = acts("admin.user.own_password_changed")
    assert act["tool_name"] == act["key_name"] == "vera" and "another-long" not in repr(acts())
    assert here.get("/admin/").status_code == 200
    assert elsewhere.get("/admin/").status_code == 302


def test_guessing_the_old_password_is_throttled_and_recorded(person):
    person("viewer", username="vera")
    client = log_in()
    statuses = [client.post(CHANGE, {"old_password": f"wrong{n}", **NEW}).status_code for n in range(6)]
    assert statuses[:4] == [200] * 4 and statuses[-1] == 429
    assert acts("admin.login.failed")[0]["tool_name"] == "vera"
    assert client.post(CHANGE, {"old_password": PASSWORD, **NEW}).status_code == 429
    assert User.objects.get(username="vera").check_password(PASSWORD)
    assert not acts("admin.user.own_password_changed")


def test_a_session_of_long_ago_gives_a_code_to_change_the_password(enrolled):
    client = log_in()
    client.post(ASK, {"token": code()})
    aged(client)
    assert b'name="own_code"' in client.get(CHANGE).content
    assert client.post(CHANGE, {"old_password": PASSWORD, **NEW}).status_code == 200
    assert User.objects.get(username="vera").check_password(PASSWORD)
    assert client.post(CHANGE, {"old_password": PASSWORD, **NEW, "own_code": code()}).status_code == 302
    assert client.get("/admin/").status_code == 200


def test_a_code_sent_twice_at_once_opens_one_session(db):
    from tests.api.test_races import at_once

    def begin() -> list[str]:
        user = User(username="racer", is_staff=True, is_superuser=True)
        user.set_password(PASSWORD)
        user.save()
        return enrol(log_in("racer"), "racer")

    def clean() -> None:
        User.objects.filter(username="racer").delete()
        OutboxEvent.objects.all().delete()

    try:
        (codes,) = at_once(begin)
        for make in (lambda: codes[0], lambda: code("racer")):
            clients = [at_once(lambda: log_in("racer"))[0] for _ in range(4)]
            (token,) = at_once(make)
            results = at_once(*[partial(send, client, token) for client in clients])
            assert results.count(302) == 1, results
            pages = [at_once(lambda client=client: client.get("/admin/").status_code)[0] for client in clients]
            assert pages.count(200) == 1
    finally:
        at_once(clean)


def send(client: Client, token: str) -> int:
    return client.post(ASK, {"token": token}).status_code


@pytest.fixture(autouse=True)
def _no_flood(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from sentinel.refused_acts import RefusedActs

    monkeypatch.setattr(second_factor, "_failures", RefusedActs(per_second=1000))
    yield
