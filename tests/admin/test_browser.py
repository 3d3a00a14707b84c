"""The three people's day in a real browser, against a running gateway: journeys, looks, and what a checker finds."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import axe, chromium
from tests.support.gateway import Gateway
from tests.support.upstream import FakeUpstream

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
PASSWORD = "correct-horse-battery-7"
SHOTS = Path(__file__).resolve().parent.parent.parent / "out" / "screenshots"
VIOLATIONS = "addEventListener('securitypolicyviolation', e => console.error('CSP', e.violatedDirective, e.blockedURI))"


@dataclass
class House:
    """A running gateway with people in it, and a browser to look at it."""

    gateway: Gateway
    browser: Any
    sessions: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def page(self, who: str = "root", *, width: int = 1280, scheme: str = "light", scripts: bool = True) -> Any:
        """Open a page as somebody who has logged in."""
        if who not in self.sessions:
            context = self.browser.new_context()
            page = context.new_page()
            page.goto(f"{self.gateway.url}/admin/login/")
            page.fill("#id_username", who)
            page.fill("#id_password", PASSWORD)
            page.press("#id_password", "Enter")
            page.wait_for_url(f"{self.gateway.url}/admin/")
            self.sessions[who] = context.storage_state()
            context.close()
        context = self.browser.new_context(
            storage_state=self.sessions[who], viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=scripts,
            base_url=self.gateway.url,
        )  # fmt: skip
        context.add_init_script(VIOLATIONS)
        page = context.new_page()
        page.on(
            "console",
            lambda message: self.problems.append(f"{page.url}: {message.text}") if message.type == "error" else None,
        )
        page.on("pageerror", lambda error: self.problems.append(f"{page.url}: {error}"))
        return page


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    from playwright.sync_api import sync_playwright

    SHOTS.mkdir(parents=True, exist_ok=True)
    found = chromium()
    people = {"DJANGO_SUPERUSER_PASSWORD": PASSWORD}
    with FakeUpstream() as fake, Gateway(workers=1, **people) as gateway:
        gateway.manage("createsuperuser", "--noinput", "--username", "root", "--email", "root@example.com")
        gateway.add_upstream("fake", fake.url)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=found.executable, args=list(found.args), env=found.env)
            yield House(gateway, browser)
            browser.close()


@pytest.fixture(autouse=True)
def _no_complaints(house: House) -> Iterator[None]:
    house.problems.clear()
    yield
    assert house.problems == []


def call(house: House, secret: str, tool: str = "list_customers") -> int:
    return house.gateway.client(secret).call(tool, {"limit": 3}).status


def test_a_key_made_here_works_on_the_next_call_and_stops_within_a_second(house):
    page = house.page()
    page.goto("/admin/policies/apikey/")
    page.click("text=Create a key >> nth=0")
    page.fill("#id_name", "browser-bot")
    page.select_option("#id_role", label="admin")
    page.click("button:has-text('Create the key')")
    secret = page.inner_text("#secret")
    assert re.fullmatch(r"mcps_live_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}", secret)
    page.screenshot(path=SHOTS / "key-secret.png")
    live = house.page()
    live.goto("/admin/audit/auditevent/live/")
    live.wait_for_selector("[data-state=on]")
    time.sleep(1.0)
    assert call(house, secret) in (200, 202)
    # The event shows in the live view within a second or two of being stored, and in the list.
    live.wait_for_selector("#live tbody tr:has-text('list_customers')", timeout=5000)
    live.screenshot(path=SHOTS / "live.png")
    live.click("#live-pause")
    assert live.inner_text("#live-state") == "Paused"
    live.context.close()
    page.goto("/admin/audit/auditevent/")
    page.click("tr:has-text('list_customers') >> nth=0 >> .time a")
    assert "browser-bot (role admin) called list_customers on fake" in page.inner_text("h1.sentence")
    assert "limit" in page.inner_text(".tree >> nth=1")
    page.screenshot(path=SHOTS / "event.png", full_page=True)
    page.click("text=key page")
    page.click("a:has-text('Revoke')")
    page.fill("#id_reason", "the test is over")
    page.click("button:has-text('Revoke')")
    started = time.monotonic()
    while call(house, secret) != 401:
        assert time.monotonic() - started < 1.5
    assert secret not in page.content()
    page.context.close()


def test_a_rule_is_read_back_saved_and_explains_a_denial(house):
    page = house.page()
    page.goto("/admin/policies/rule/add/")
    page.check("input[name=effect][value=deny]")
    page.check("text=every role")
    page.fill("#id_pattern", "delete_*")
    page.fill("[name=when-0-path]", "amount")
    page.select_option("[name=when-0-operator]", "gt")
    page.fill("[name=when-0-value]", "100")
    page.fill("#id_reason", "Deletes over 100 need a ticket.")
    page.click("button:has-text('Read back')")
    assert "Denies every role tools delete_* on every upstream when amount is greater than 100." in page.inner_text(
        ".readback"
    )
    page.screenshot(path=SHOTS / "rule.png")
    page.click("button:has-text('Save')")
    page.goto("/admin/policies/rule/explain/")
    page.select_option("#id_role", "admin")
    page.fill("#id_tool", "delete_customer")
    page.fill("#id_arguments", '{"amount": 500}')
    page.click("form >> button:has-text('Explain')")
    assert "may not use tool delete_customer" in page.inner_text(".callout.stop")
    page.screenshot(path=SHOTS / "explain.png")
    page.context.close()


def test_a_person_with_one_duty_sees_that_duty_only(house):
    page = house.page()
    page.goto("/admin/sentinel/user/add/")
    page.fill("#id_username", "vera")
    page.check("input[value=viewer]")
    page.fill("#id_password", PASSWORD)
    page.click("button:has-text('Save')")
    page.context.close()
    page = house.page("vera")
    page.goto("/admin/")
    links = page.locator(".sidenav a").all_inner_texts()
    assert [link.strip() for link in links] == ["Overview", "Events", "Live"]
    house.problems.clear()
    assert page.goto("/admin/policies/apikey/").status == 403
    assert "Not yours to do" in page.inner_text("main")
    house.problems.clear()  # the browser itself reports the 403
    page.context.close()


def test_without_scripts(house):
    page = house.page(scripts=False)
    page.goto("/admin/audit/auditevent/")
    page.click("summary:has-text('Filter')")
    page.check("input[name=outcome][value=denied]")
    page.click("button:has-text('Apply')")
    assert "outcome=denied" in page.url
    assert page.locator(".chip:has-text('denied')").count() == 1
    page.click("[aria-label='Remove outcome denied']")
    assert page.locator(".chip").count() == 0
    page.goto("/admin/policies/apikey/add/")
    page.fill("#id_name", "no-scripts")
    page.select_option("#id_role", label="user")
    page.click("button:has-text('Create the key')")
    assert page.locator("#secret").count() == 1
    page.goto("/admin/audit/auditevent/live/")
    assert "Following needs scripts" in page.inner_text("main")
    page.context.close()


def test_by_keyboard_alone(house):
    context = house.browser.new_context(base_url=house.gateway.url)
    page = context.new_page()
    page.goto("/admin/login/")
    # The first field has the focus, once it is there.
    page.wait_for_function("document.activeElement.name === 'username'")
    page.keyboard.type("root")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/admin/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to main content"

    def reach(text: str) -> None:
        for _ in range(60):
            if page.evaluate("document.activeElement.innerText || ''").strip() == text:
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"{text} cannot be reached")

    reach("Events")
    page.keyboard.press("Enter")
    page.wait_for_url("**/auditevent/")
    page.keyboard.press("/")  # straight to the search
    page.keyboard.type("customers")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=customers*")
    context.close()


def test_the_day_of_an_export(house):
    """Without scripts as with them: the page of a large export follows it to the file, and deletes it."""
    page = house.page()
    page.goto("/admin/audit/auditevent/export/?outcome=changed")
    assert "About" in page.inner_text("form.card")
    with page.expect_download() as download:
        page.click("button:has-text('Download')")
    lines = Path(download.value.path()).read_text().splitlines()
    assert lines
    assert all(json.loads(line)["outcome"] == "changed" for line in lines)
    page.context.close()


def test_acts_that_cannot_be_undone_are_asked_once_more(house):
    page = house.page()
    for name in ("gone-1", "gone-2"):
        house.gateway.create_key(name, "user")
    page.goto("/admin/policies/apikey/?q=gone-")
    page.click("button:has-text('Revoke all 2 found')")
    page.fill("#id_reason", "the test is over")
    page.screenshot(path=SHOTS / "revoke-many.png")
    page.click("button:has-text('Revoke')")
    assert "2 keys revoked" in page.inner_text(".messagelist")
    page.context.close()


PAGES = {
    "overview": "/admin/", "events": "/admin/audit/auditevent/", "live": "/admin/audit/auditevent/live/", "export": "/admin/audit/auditevent/export/?outcome=denied",
    "integrity": "/admin/audit/auditevent/integrity/", "health": "/admin/health/", "keys": "/admin/policies/apikey/?state=all", "key-new": "/admin/policies/apikey/add/",
    "roles": "/admin/policies/role/", "role": "/admin/policies/role/1/change/", "matrix": "/admin/policies/role/matrix/", "rules": "/admin/policies/rule/",
    "rule-new": "/admin/policies/rule/add/", "limits": "/admin/policies/ratelimit/", "limit-new": "/admin/policies/ratelimit/add/", "replay": "/admin/policies/rule/replay/",
    "versions": "/admin/policies/policyversion/", "explain": "/admin/policies/rule/explain/?role=user&tool=list_customers", "upstreams": "/admin/proxy/upstream/",
    "upstream": "/admin/proxy/upstream/1/change/", "upstream-new": "/admin/proxy/upstream/add/", "tools": "/admin/proxy/catalogueitem/", "users": "/admin/sentinel/user/",
    "user-new": "/admin/sentinel/user/add/", "preferences": "/admin/preferences/", "second-factor": "/admin/second-factor/", "password": "/admin/password_change/",
    "components": "/admin/components/", "overview-week": "/admin/?range=7d", "keys-revoked": "/admin/policies/apikey/?state=revoked",
}  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_looks_right_and_is_accessible(house, scheme, width):
    source = axe()
    page = house.page(width=width, scheme=scheme)
    found: dict[str, Any] = {}
    for name, address in PAGES.items():
        answer = page.goto(address)
        assert answer.status == 200, address
        page.screenshot(path=SHOTS / f"{name}-{scheme}-{width}.png", full_page=True)
        if page.evaluate("document.documentElement.scrollWidth") > width:
            found[f"{name} overflow"] = page.evaluate("document.documentElement.scrollWidth")
        page.evaluate(source)
        report = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        for violation in report["violations"]:
            if violation["impact"] in ("serious", "critical"):
                nodes = [node["html"][:120] for node in violation["nodes"][:3]]
                found.setdefault(f"{violation['id']}: {violation['help']}", []).append((name, nodes))
    page.context.close()
    assert not found, json.dumps(found, indent=1)[:6000]
