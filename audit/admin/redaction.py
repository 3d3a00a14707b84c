"""What is redacted, in the admin: a list, a form, and a box to try both on a text that is kept nowhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_post_parameters

from audit.models import RedactionRule
from audit.redaction.redactor import Redactor
from audit.redaction.rules import PatternError, RedactionRuleSet
from audit.services import redaction_rules
from core.access.actors import actor
from core.admin.base import EditPages

MOST_TRIED = 10_000
sensitive = method_decorator(sensitive_post_parameters("try"))


class RedactionRuleForm(forms.ModelForm):  # type: ignore[type-arg]
    """One rule."""

    class Meta:
        model = RedactionRule
        fields = ("kind", "value", "label", "note", "enabled")


def tried(text: str, rows: list[tuple[str, str, str]]) -> str:
    """Show a text as the log would keep it under these rules."""
    return Redactor(settings.SENTINEL.redaction_key, RedactionRuleSet.of(rows)).text(text[:MOST_TRIED])[0]


def rows_but(pk: int | None) -> list[tuple[str, str, str]]:
    """Give the enabled rules, but for one that is being edited."""
    others = RedactionRule.objects.filter(enabled=True).exclude(pk=pk or 0).order_by("id")
    return list(others.values_list("kind", "value", "label"))


@admin.register(RedactionRule)
class RedactionRuleAdmin(EditPages):
    """Names, patterns and personal data that are redacted beside what always is."""

    gone = "is redacted no longer"

    @sensitive
    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """List the rules; try all that are enabled on a text."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        text, shown, problem = request.POST.get("try", ""), "", ""
        if text:
            try:
                shown = tried(text, rows_but(None))
            except PatternError as error:
                problem = str(error)
        context = {
            **self.admin_site.each_context(request),
            "title": "Redaction",
            "rules": list(RedactionRule.objects.order_by("kind", "value")),
            "may_add": self.has_add_permission(request),
            "text": text[:MOST_TRIED],
            "shown": shown,
            "problem": problem,
        }
        return render(request, "admin/audit/redaction.html", context)

    @sensitive
    def edit(self, request: HttpRequest, rule: RedactionRule | None) -> HttpResponse:
        """Show the form; try it, or save it through the acts."""
        may = self.may_save(request, rule)
        pk = rule.pk if rule else None
        title = str(rule) if rule else "Add a rule"
        form = RedactionRuleForm(request.POST or None, instance=rule)
        text, shown = request.POST.get("try", ""), ""
        if request.method == "POST" and form.is_valid():
            fields = form.cleaned_data
            if "save" in request.POST:
                if self.saved(request, pk, form):
                    messages.success(
                        request, f"Saved: {fields['kind']} {fields['value']}. Workers know it within a second."
                    )
                    return redirect("admin:audit_redactionrule_changelist")
            elif text:
                shown = tried(text, [*rows_but(pk), (fields["kind"], fields["value"], fields["label"])])
        context = {
            **self.admin_site.each_context(request),
            "title": title,
            "form": form,
            "pk": pk,
            "may_change": may,
            "may_delete": pk is not None and self.has_delete_permission(request),
            "text": text[:MOST_TRIED],
            "shown": shown,
        }
        return render(request, "admin/audit/redaction_rule.html", context)

    def saved(self, request: HttpRequest, pk: int | None, form: RedactionRuleForm) -> bool:
        """Save a rule, or put into the form why it cannot be."""
        try:
            with transaction.atomic():
                if pk is None:
                    made = redaction_rules.create_rule(**form.cleaned_data, actor=actor(request))
                else:
                    made = redaction_rules.change_rule(pk, actor=actor(request), **form.cleaned_data)
                self.log_saved(request, made, form.changed_data if pk else None)
        except ValidationError as error:
            form.add_error(None, error.messages)
            return False
        return True

    def deletion(self, thing: RedactionRule) -> tuple[str, str, Callable[..., Any]]:
        """What changes with it."""
        about = "From now on it is kept in events as it is sent. What was redacted stays redacted."
        return f"the {thing}", about, redaction_rules.delete_rule
