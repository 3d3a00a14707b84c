"""The base of the pages in the admin: those of a model, typed for the checker and plain for Python, and those of none."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render

__all__ = ["Pages", "asked", "page"]

LONGEST = 200
# What lists are sent beside their conditions.
BESIDES = ("page", "csrfmiddlewaretoken", "every", "key", "reason", "own_password", "own_code")

if TYPE_CHECKING:

    class Pages(admin.ModelAdmin[Any]):
        """A model's pages."""

else:
    Pages = admin.ModelAdmin


def page(request: HttpRequest, template: str, context: dict[str, Any], status: int = 200) -> HttpResponse:
    """Render a page that is no model's, with what all pages of the admin need."""
    return render(request, template, admin.site.each_context(request) | context, status=status)


def asked(
    request: HttpRequest, query: QueryDict, choices: Mapping[str, Collection[str] | None]
) -> tuple[dict[str, str], bool]:
    """Read the conditions of a list: by name what each may be, None for any text. What cannot fit is said on the page, and
    False tells that nothing is to be shown.
    """
    found, problems = {}, []
    for name, allowed in choices.items():
        given = {value.strip() for value in query.getlist(name)} - {""}
        if len(given) > 1:
            problems.append(f"“{name}” can be given once.")
        found[name] = value = next(iter(given), "")
        if len(value) > LONGEST or "\0" in value or (value and allowed is not None and value not in allowed):
            problems.append(f"There is no {name} “{value[:60]}”." if allowed is not None else "That text is too long.")
    problems += [f"There is no filter “{name[:60]}”." for name in query if name not in choices and name not in BESIDES]
    for problem in problems:
        messages.warning(request, problem)
    return found, not problems
