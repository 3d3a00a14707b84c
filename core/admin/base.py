"""The base of the pages in the admin: finding a row, adding, changing, asking before one is deleted; and pages of no model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render

from core.access.actors import Actor, actor

__all__ = ["EditPages", "Pages", "asked", "number", "page"]

LONGEST = 200
# What lists are sent beside their conditions.
BESIDES = ("page", "csrfmiddlewaretoken", "every", "key", "reason", "own_password", "own_code")

if TYPE_CHECKING:

    class _Typed(admin.ModelAdmin[Any]):
        pass

else:
    _Typed = admin.ModelAdmin


def number(text: Any) -> int:
    """Read the number of a row in an address; what can be none is not there."""
    if not str(text).isdecimal() or len(str(text)) > 18:
        raise Http404
    return int(text)


class Pages(_Typed):
    """A model's pages, typed for the checker."""

    def one(self, pk: Any) -> Any:
        """Return a row by its number, or say that there is none."""
        row = self.model._default_manager.filter(pk=number(pk)).first()
        if row is None:
            raise Http404
        return row


class EditPages(Pages):
    """Pages of a model with one form for adding and changing, and a page that asks before it deletes."""

    #: what is said of a thing that was deleted
    gone = "was deleted"

    def edit(self, request: HttpRequest, thing: Any) -> HttpResponse:
        """Show the form of a thing, or of a new one where it is None, and save it through the acts."""
        raise NotImplementedError

    def deletion(self, thing: Any) -> tuple[str, str, Callable[..., Any]]:
        """Return how a thing is called, what its deletion means, and the act."""
        raise NotImplementedError

    def may_save(self, request: HttpRequest, thing: Any) -> bool:
        """Whether this person may save what the form shows; refuses whoever may not even see it, or sends it all the same."""
        may = self.has_change_permission(request) if thing else self.has_add_permission(request)
        if not may and (request.method == "POST" or not thing or not self.has_view_permission(request)):
            raise PermissionDenied
        return may

    def log_saved(self, request: HttpRequest, row: Any, changed: list[str] | None) -> None:
        """Write the admin's own history: which fields changed; None where the row is new."""
        if changed is None:
            self.log_addition(request, row, "created")
        else:
            self.log_change(request, row, [{"changed": {"fields": changed}}])

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        return self.edit(request, None)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        return self.edit(request, self.one(object_id))

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Ask, then delete through the act; what refuses says why on the page."""
        if not self.has_delete_permission(request):
            raise PermissionDenied
        row = Pages.one(self, object_id)  # the row itself, also where the form shows what policy makes of it
        name, about, act = self.deletion(row)
        back = f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist"
        problems: list[str] = []
        if request.method == "POST":
            who: Actor = actor(request)
            try:
                with transaction.atomic():
                    self.log_deletions(request, self.model._default_manager.filter(pk=row.pk))
                    act(row.pk, actor=who)
            except ValidationError as error:
                problems = list(error.messages)
            else:
                messages.success(request, f"{name[0].upper()}{name[1:]} {self.gone}.")
                return redirect(back)
        context = {"title": f"Delete {name}?", "about": about, "problems": problems, "back": back}
        return render(request, "admin/delete.html", {**self.admin_site.each_context(request), **context})


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
