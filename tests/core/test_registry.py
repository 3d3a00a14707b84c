"""Arrows point down: what a lower package wants from a higher one it asks of the registry, and names nothing of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.contrib import admin
from django.urls import URLPattern

from core import registry
from core.registry import Question, Unanswered
from sentinel.site import pages as site_pages

ROOT = Path(__file__).parents[2]
ORDER = ("core", "audit", "policies", "proxy", "sentinel")


def questions() -> dict[str, Question[..., object]]:
    return {name: value for name, value in vars(registry).items() if isinstance(value, Question)}


def test_every_question_is_answered_once_the_applications_are_there() -> None:
    assert len(questions()) > 10
    assert not [name for name, question in questions().items() if question._answer is None]


def test_what_nobody_answers_is_an_error_that_says_what_was_asked() -> None:
    nobody: Question[[int], str] = Question("what nobody knows")
    with pytest.raises(Unanswered, match="what nobody knows"):
        nobody(1)
    nobody.answered_by(str)
    assert nobody(1) == "1"


class Holder:
    def __init__(self, *held: str) -> None:
        self.held = held

    def has_perm(self, name: str) -> bool:
        return name in self.held


def test_a_page_is_linked_for_whoever_may_see_it() -> None:
    page = registry.page("admin:policies_explain", "policies.explain_policy")
    assert page() == page(user=Holder("policies.view_apikey")) == ""
    assert page(user=Holder("policies.explain_policy")) == "/admin/policies/rule/explain/"
    assert registry.page("/somewhere/{}")("crm") == "/somewhere/crm"


def files_of(package: str) -> list[Path]:
    """A package's code, and its templates; those that several show lie above all of them and are nobody's."""
    folders = [ROOT / package, ROOT / "templates" / "admin" / package]
    every = [path for folder in folders for path in sorted(folder.rglob("*"))]
    return [path for path in every if path.suffix in (".py", ".html") and "migrations" not in path.parts]


def names_of(package: str) -> list[str]:
    """What only a package of this name may say: its templates, the names of its pages, its addresses."""
    pages = [f"admin/{package}/", f"admin:{package}_"]
    if package == "proxy":
        return [*pages, "/mcp/", "/sse/", "/messages/"]
    if package == "sentinel":
        known = {pattern.name for pattern in admin.site.get_urls() if isinstance(pattern, URLPattern) and pattern.name}
        own = {name for name in known if hasattr(site_pages, name) or name.startswith("second_factor")}
        return [*pages, *(f"admin:{name}" for name in own), "/api/", "/admin/", "/livez", "/readyz", "/metrics"]
    return pages


@pytest.mark.parametrize("package", ORDER[:-1])
def test_a_package_names_no_page_address_or_template_of_a_higher_one(package: str) -> None:
    foreign = [name for above in ORDER[ORDER.index(package) + 1 :] for name in names_of(above)]
    assert {"admin:save_view", "admin:second_factor", "admin/sentinel/"} <= set(foreign)
    # At the head of a path: `webhooks/api/` within a pattern for secrets is none of ours.
    said = re.compile("|".join(rf"""(?<![\w.)?+\\]){re.escape(name)}""" for name in foreign))
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:160]}"
        for path in files_of(package)
        if path != ROOT / "core" / "conf" / "settings.py"  # what settings mean is told in the product's own words
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if said.search(line)
    ]
    assert not found, "ask core.registry instead:\n" + "\n".join(found)


@pytest.mark.parametrize("package", ORDER)
def test_nobody_asks_the_site_what_another_package_knows(package: str) -> None:
    asks = re.compile(r"""getattr\(\s*(?:admin\.site|site|[\w.]*admin_site)\s*,""")
    found = [str(path) for path in files_of(package) if asks.search(path.read_text(encoding="utf-8"))]
    assert not found


def test_what_several_packages_show_is_nobodys() -> None:
    """A template beside a package's own ones is shared; one that only it may use lies in its folder."""
    for package in ORDER:
        for path in files_of(package):
            if path.suffix != ".html":
                continue
            for used in re.findall(
                r"""(?:include|extends) ["'](admin/(\w+)/[^"']+)""", path.read_text(encoding="utf-8")
            ):
                assert used[1] == package, f"{path.name} shows {used[0]}"
