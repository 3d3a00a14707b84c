"""Log-in, log-out, refusals, headers, and the second factor."""

from __future__ import annotations

import dataclasses
import re

import pytest
from django.conf import settings
from django.core.management import call_command
from django.test import Client

from sentinel.models import User
from tests.admin.conftest import PASSWORD, acts

pytestmark = pytest.mark.django_db


def test_created_superuser_logs_in_by_username(monkeypatch):
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", PASSWORD)
    call_command("createsuperuser", username="first", email="first@example.com", interactive=False)
    client = Client()
    assert client.get("/admin/login/").status_code == 200
    answer = client.post("/admin/login/", {"username": "first", "password": PASSWORD, "next": "/admin/"})
    assert (answer.status_code, answer["Location"]) == (302, "/admin/")
    assert client.get("/admin/").status_code == 200
    made, logged_in = acts()
    assert (made["method"], logged_in["method"]) == ("admin.user.created", "admin.login")
    assert made["tool_name"] == "first" and made["outcome"] == logged_in["outcome"] == "changed"
    assert made["details"]["actor"]["kind"] == "system" and PASSWORD not in repr(made)


def test_a_password_set_by_command_leaves_an_event(monkeypatch):
    User.objects.create_superuser("second", password=PASSWORD)
    monkeypatch.setattr("getpass.getpass", lambda prompt: "another-horse-battery-9")
    call_command("changepassword", "second")
    assert User.objects.get(username="second").check_password("another-horse-battery-9")
    (act,) = acts()
    assert (act["method"], act["tool_name"]) == ("admin.user.password_set", "second")
    assert "another-horse" not in repr(act)


def test_a_wrong_password_is_told_and_recorded_without_what_was_typed(person):
    person("viewer", username="vera")
    client = Client()
    answer = client.post("/admin/login/", {"username": "vera", "password": "wrong"})
    assert answer.status_code == 200
    assert b"Please enter the correct username and password" in answer.content
    record = acts("admin.login.failed")[0]
    assert record["tool_name"] == "vera"
    # A password typed into the wrong field is kept nowhere.
    client.post("/admin/login/", {"username": "hunter2-my-secret-password", "password": "x"})
    assert "hunter2" not in repr(acts())
    from axes.models import AccessAttempt

    assert not any("hunter2" in repr(vars(attempt)) for attempt in AccessAttempt.objects.all())


def test_guessing_is_throttled_for_that_name_and_address_only(person):
    person("viewer", username="vera")
    client = Client()
    statuses = [
        client.post("/admin/login/", {"username": "vera", "password": f"wrong{n}"}).status_code for n in range(6)
    ]
    assert statuses[:4] == [200] * 4
    assert statuses[-1] == 429
    answer = client.post("/admin/login/", {"username": "vera", "password": PASSWORD})
    assert answer.status_code == 429
    assert answer["Retry-After"]
    assert b"Too many wrong attempts" in answer.content
    elsewhere = Client(REMOTE_ADDR="192.0.2.9")
    assert (
        elsewhere.post("/admin/login/", {"username": "vera", "password": PASSWORD, "next": "/admin/"}).status_code
        == 302
    )


def test_log_out_is_an_event(as_duty):
    client = as_duty("viewer")
    assert client.post("/admin/logout/").status_code == 200
    assert acts("admin.logout")
    assert client.get("/admin/").status_code == 302


def test_refusals_are_events(as_duty):
    client = as_duty("viewer")
    assert client.get("/admin/policies/apikey/").status_code == 403
    record = acts("admin.refused")[0]
    assert record["status_code"] == 403
    assert record["key_name"] == "viewer"
    assert record["tool_name"] == "/admin/policies/apikey/"


def test_a_missing_form_token_is_refused_and_recorded(person):
    client = Client(enforce_csrf_checks=True)
    client.force_login(person("administrator"), backend="django.contrib.auth.backends.ModelBackend")
    answer = client.post("/admin/preferences/", {"theme": "dark", "time_zone": "UTC"})
    assert answer.status_code == 403
    assert b"reload the page" in answer.content
    assert acts("admin.refused")


@pytest.mark.parametrize("path", ["/admin/login/", "/admin/", "/admin/audit/auditevent/", "/admin/nowhere/"])
def test_headers_are_strict_everywhere(path, admin_client):
    answer = admin_client.get(path)
    policy = answer["Content-Security-Policy"]
    assert policy.startswith("default-src 'self'")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["Referrer-Policy"] == "same-origin"


def test_no_page_has_inline_script_or_style(admin_client, event):
    made = event()
    for path in (
        "/admin/",
        "/admin/audit/auditevent/",
        f"/admin/audit/auditevent/{made.id}/change/",
        "/admin/policies/apikey/add/",
    ):
        text = admin_client.get(path).content.decode()
        assert " style=" not in text
        assert "<style" not in text
        assert "<script>" not in text


def test_what_is_not_there_is_said_on_a_page(as_duty, client):
    answer = as_duty("viewer").get("/admin/audit/auditevent/nonsense/change/")
    assert answer.status_code == 404
    assert b"There is nothing here" in answer.content
    assert b"sidenav" in answer.content
    elsewhere = client.get("/nowhere-at-all")
    assert (elsewhere.status_code, elsewhere["Content-Type"]) == (404, "text/plain; charset=utf-8")
    assert b"/admin/" in elsewhere.content


def test_a_browser_at_the_bare_address_comes_to_the_admin(client):
    answer = client.get("/", headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert (answer.status_code, answer["Location"]) == (302, "/admin/")
    assert client.get("/", headers={"accept": "application/json, text/event-stream"}).status_code == 404
    assert client.post("/", {}, headers={"accept": "text/html"}).status_code == 404


def test_the_page_of_an_error_needs_nothing(settings):
    from django.template.loader import render_to_string

    assert "Something went wrong" in render_to_string("500.html")


def test_cookies_are_closed(person):
    person("viewer", username="vera")
    client = Client()
    client.post("/admin/login/", {"username": "vera", "password": PASSWORD})
    cookie = client.cookies[settings.SESSION_COOKIE_NAME]
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"
    assert settings.SENTINEL.instance in settings.SESSION_COOKIE_NAME


def test_a_second_factor_is_demanded_per_group(person, settings):
    from django_otp.oath import totp
    from django_otp.plugins.otp_totp.models import TOTPDevice

    settings.SENTINEL = dataclasses.replace(settings.SENTINEL, second_factor_groups=("auditor",))
    viewer, auditor = Client(), Client()
    viewer.force_login(person("viewer"), backend="django.contrib.auth.backends.ModelBackend")
    auditor.force_login(person("auditor"), backend="django.contrib.auth.backends.ModelBackend")
    assert viewer.get("/admin/").status_code == 200
    answer = auditor.get("/admin/audit/auditevent/")
    assert (answer.status_code, answer["Location"]) == (302, "/admin/second-factor/")
    assert auditor.get("/admin/second-factor/").status_code == 200
    assert b"not right" in auditor.post("/admin/second-factor/", {"token": "000000"}).content
    device = TOTPDevice.objects.get(user__username="auditor")
    device.throttle_reset()
    token = f"{totp(device.bin_key):06d}"
    assert auditor.post("/admin/second-factor/", {"token": token}).status_code == 302
    assert auditor.get("/admin/audit/auditevent/").status_code == 200
    assert acts("admin.second_factor.enrolled")
    # Once it is proven, the secret is not shown again.
    after = auditor.get("/admin/second-factor/").content
    assert b'class="secret"' not in after
    assert b'<svg class="qr"' not in after


def test_the_qr_code_is_drawn_on_the_page_and_the_secret_is_in_no_address(as_duty, caplog):
    import base64

    import segno
    from django_otp.plugins.otp_totp.models import TOTPDevice

    client = as_duty("viewer", username="vera")
    answer = client.get("/admin/second-factor/")
    text = answer.content.decode()
    device = TOTPDevice.objects.get(user__username="vera")
    secret = base64.b32encode(device.bin_key).decode()
    drawn = re.search(r'<svg[^>]*class="qr".*?</svg>', text, re.DOTALL)[0]
    # The same modules as the code of the address that authenticators read.
    line = re.search(r'd="(M[^"]+)"', segno.make(device.config_url, error="m", micro=False).svg_inline(border=4))[1]
    assert line in drawn
    assert " ".join(secret[place : place + 4] for place in range(0, 32, 4)) in text
    for place in (" style=", '<img src="data:', "otpauth:"):
        assert place not in text
    assert not any(secret in address for address in re.findall(r'(?:href|src|action)="([^"]*)"', text))
    assert "no-store" in answer["Cache-Control"]
    assert secret not in caplog.text
    assert secret not in repr(acts())


def test_a_person_who_is_switched_off_is_out_at_once(as_duty):
    client = as_duty("viewer")
    assert client.get("/admin/").status_code == 200
    User.objects.update(is_active=False)
    assert client.get("/admin/").status_code == 302


def test_preferences_change_zone_and_theme(as_duty, event):
    client = as_duty("viewer")
    made = event()
    client.post("/admin/preferences/", {"theme": "dark", "time_zone": "Asia/Tokyo"})
    text = client.get(f"/admin/audit/auditevent/{made.id}/change/").content.decode()
    assert 'data-theme="dark"' in text
    assert "JST" in text
