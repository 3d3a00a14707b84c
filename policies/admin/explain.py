"""Why something is allowed or denied, and what another policy would have decided."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from audit.services.acts import record
from core import registry
from policies import vocabulary
from policies.documents.sentences import limit_sentence, rule_sentence
from policies.engine import schemas
from policies.engine.conditions import ERROR, YES
from policies.engine.types import ABSENT, Context, Principal, Target
from policies.models import ApiKey, Role
from policies.simulate import preview
from policies.simulate.explain import explain
from policies.simulate.past_event import past
from policies.simulate.recorded import replay

MOST_GROUPS = 200
SINCE = [("1", "the last day"), ("7", "the last 7 days"), ("30", "the last 30 days")]


class ExplainForm(forms.Form):
    """A call that somebody asks about."""

    key = forms.CharField(required=False, label="Key", help_text="Its name, prefix or id.")
    role = forms.ChoiceField(required=False, label="Or a role")
    upstream = forms.CharField(required=False, max_length=63)
    kind = forms.ChoiceField(choices=[(kind, kind) for kind in vocabulary.KINDS], required=False, initial="tool")
    tool = forms.CharField(label="Name", strip=False, max_length=1024)
    arguments = forms.CharField(
        required=False,
        widget=forms.Textarea(attrs={"rows": 4, "spellcheck": "false", "placeholder": '{"amount": 100}'}),
        help_text="As JSON. Empty: none are sent.",
    )
    ip = forms.GenericIPAddressField(required=False, label="From address")
    at = forms.DateTimeField(
        required=False,
        label="At",
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}),
        help_text="Empty: now.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [("", "Choose"), *((name, name) for name in Role.objects.values_list("name", flat=True))]
        self.fields["role"].choices = choices  # type: ignore[attr-defined]

    def clean_arguments(self) -> Any:
        text = self.cleaned_data["arguments"].strip()
        if not text:
            return ABSENT
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise forms.ValidationError("That is not JSON.") from None
        if not isinstance(value, dict):
            raise forms.ValidationError("Arguments are an object, like {“amount”: 100}.")
        return value

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if data.get("key"):
            from policies.services import keys as key_acts

            try:
                data["found"] = key_acts.find(data["key"])
            except forms.ValidationError as error:
                self.add_error("key", error)
        elif not data.get("role"):
            self.add_error("role", "Choose a key or a role.")
        return data


def explain_view(request: HttpRequest) -> HttpResponse:
    """Answer one question; nothing is executed."""
    if not request.user.has_perm("policies.explain_policy"):
        raise PermissionDenied
    data = request.GET.copy()
    then = past(request, data.get("event", ""))
    if then is not None:
        for name, value in then.fields.items():
            data.setdefault(name, value)
    asked = "tool" in data
    if asked and not data.get("kind"):
        data["kind"] = "tool"
    form = ExplainForm(data if asked else None, initial={"key": data.get("key", ""), "kind": "tool"})
    answer = _answer(form.cleaned_data) if asked and form.is_valid() else None
    context = {
        **admin.site.each_context(request),
        "title": "Explain a decision",
        "form": form,
        "answer": answer,
        "event": then.id if then else _event(data.get("event", "")),
        "then": then,
        "asked_as_then": then is not None and all(data.get(name, "") == value for name, value in then.fields.items()),
        "known": registry.suggestions(),
    }
    return render(request, "admin/policies/explain.html", context)


def _event(value: str) -> str:
    try:
        return str(UUID(value))
    except ValueError:
        return ""


def _answer(asked: dict[str, Any]) -> dict[str, Any]:
    compiled = preview.policy()
    key: ApiKey | None = asked.get("found")
    role = (key.role.name if key.role else "") if key else asked["role"]
    principal = (
        Principal(key.pk, key.name, key.prefix, role, frozenset(key.upstreams))
        if key
        else Principal(None, "", "", role)
    )
    kind = asked["kind"] or "tool"
    known = schemas.known(kind, asked["upstream"], asked["tool"])
    lookup = partial(schemas.known, "tool", asked["upstream"])
    target = Target(kind, asked["upstream"], asked["tool"], asked["arguments"], known.annotations)
    now = asked["at"].timestamp() if asked["at"] else time.time()
    context = Context(now, asked["ip"] or None)
    told = explain(compiled, principal, target, context, known=known, lookup=lookup)
    decision = told.decision
    candidates = compiled.candidates(principal.role, principal.key_prefix, kind, asked["upstream"], asked["tool"])
    considered = []
    for rule in (*candidates.denies, *candidates.allows, *candidates.shadows):
        found = rule.check(target, context)
        word = "matches" if found == YES else "cannot be decided" if found == ERROR else "does not match"
        settles = decision.rule is not None and rule.ref.id == decision.rule.id
        considered.append({"spec": rule.spec, "sentence": rule_sentence(rule.spec), "word": word, "settles": settles})
    sentences = {rule.id: rule_sentence(rule) for rule in compiled.spec.rules}
    near = [
        {"rule": miss.rule, "sentence": sentences.get(miss.rule.id, miss.label), "why": "; ".join(miss.why)}
        for miss in told.near
    ]
    blocked = bool(key and not key.is_live)
    return {
        "decision": decision,
        # Allowed with some arguments, and none were given to ask with.
        "depends": told.listed and not decision.allowed and asked["arguments"] is ABSENT,
        "who": principal.key_name or f"role {role}",
        "key": key,
        "role_now": role,
        "blocked": blocked,
        "reach": principal.reaches(asked["upstream"]) or not asked["upstream"],
        "considered": considered,
        "near": near,
        "limits": [(limit, limit_sentence(limit)) for limit in told.limits],
        "listed": told.listed,
        "dispatches": known.dispatches,
        "example": json.dumps(told.example, ensure_ascii=False, indent=2) if told.example is not None else "",
        "target": asked["tool"],
        "kind": kind,
        "upstream": asked["upstream"],
        "version": compiled.version,
    }


class ReplayForm(forms.Form):
    """A policy to try on past events."""

    document = forms.CharField(
        label="Policy (YAML)",
        strip=False,
        widget=forms.Textarea(attrs={"rows": 18, "spellcheck": "false", "class": "mono"}),
    )
    since = forms.ChoiceField(choices=SINCE, initial="7", label="Events of")


def replay_view(request: HttpRequest) -> HttpResponse:
    """Run a draft policy over past events and show what would have been decided otherwise."""
    if not request.user.has_perm("policies.replay_policy"):
        raise PermissionDenied
    from policies.services import policy as policy_acts

    payloads = request.user.has_perm("audit.view_payload")
    form = ReplayForm(request.POST or None, initial={"document": policy_acts.export(), "since": "7"})
    result: Any = None
    problem = ""
    if request.method == "POST" and form.is_valid():
        since = timezone.now() - timedelta(days=int(form.cleaned_data["since"]))
        try:
            result = _replay(form.cleaned_data["document"], since, payloads=payloads)
        except (ValueError, forms.ValidationError) as error:
            problem = "\n".join(error.messages) if isinstance(error, forms.ValidationError) else str(error)
        else:
            record("admin.policy.replayed", request, details={"since": since.isoformat(), "payloads": payloads})
    context = {
        **admin.site.each_context(request),
        "title": "Replay a policy",
        "form": form,
        "result": result,
        "problem": problem,
        "payloads": payloads,
    }
    return render(request, "admin/policies/replay.html", context)


def _replay(document: str, since: Any, *, payloads: bool) -> dict[str, Any]:
    report = replay(document, since=since, payloads=payloads).as_dict()
    report["groups"] += report["undone"]
    report["more"] = max(0, len(report["groups"]) - MOST_GROUPS)
    report["groups"] = report["groups"][:MOST_GROUPS]
    return report
