"""The forms of rules and limits: what people choose, turned into the values that the services take."""

from __future__ import annotations

import json
from collections.abc import Iterable
from ipaddress import ip_network
from typing import Any

from django import forms

from core.admin.zones import ZoneField
from policies import vocabulary
from policies.documents.sentences import OPERATORS
from policies.forms.keys import words_of
from policies.forms.members import SpecForm, takes
from policies.models import ApiKey, Role
from policies.specs import LIMIT, RULE, ConditionSpec, LimitSpec, RuleSpec, WindowSpec, exceeding, plain

__all__ = ["ConditionForms", "LimitForm", "RuleForm"]

KIND_WORDS = {"tool": "tools", "prompt": "prompts", "resource": "resources", "method": "methods"}
DAY_WORDS = [(day, day.capitalize()) for day in vocabulary.WEEKDAYS]


def _roles() -> list[tuple[str, str]]:
    return [(name, name) for name in Role.objects.values_list("name", flat=True)]


def _keys(chosen: Iterable[str]) -> list[tuple[str, str]]:
    """Agents' keys that are not revoked, and those that are chosen already, whatever became of them."""
    live = ApiKey.objects.filter(duty=None, revoked_at=None).only("name", "public_id")[:500]
    known = {key.prefix: f"{key.name} ({key.prefix})" for key in live}
    gone = {prefix: f"{prefix} (no longer live)" for prefix in sorted(chosen) if prefix not in known}
    return [*known.items(), *gone.items()]


@takes(RULE)
class RuleForm(SpecForm):
    """A rule: who, what, when, and what the caller is told."""

    placed = frozenset(("effect", "reason"))

    any_role = forms.BooleanField(required=False, label="Every role")
    roles = forms.MultipleChoiceField(required=False, widget=forms.CheckboxSelectMultiple)
    keys = forms.MultipleChoiceField(
        required=False, label="Only these keys", help_text="None chosen: every key of these roles."
    )
    kinds = forms.MultipleChoiceField(
        choices=list(KIND_WORDS.items()), widget=forms.CheckboxSelectMultiple, initial=["tool"]
    )
    pattern = forms.CharField(
        max_length=vocabulary.MAX_PATTERN,
        strip=False,
        help_text="The whole name, case-sensitive. * stands for any characters, ? for one.",
    )
    upstreams = forms.CharField(required=False, help_text="Empty: every upstream.")
    days = forms.MultipleChoiceField(choices=DAY_WORDS, required=False, widget=forms.CheckboxSelectMultiple)
    from_time = forms.TimeField(
        required=False, label="From", widget=forms.TimeInput(attrs={"type": "time"}, format="%H:%M")
    )
    to_time = forms.TimeField(
        required=False, label="To", widget=forms.TimeInput(attrs={"type": "time"}, format="%H:%M")
    )
    time_zone = ZoneField(required=False, initial="UTC")
    valid_from = forms.DateTimeField(required=False, widget=forms.DateTimeInput(attrs={"type": "datetime-local"}))
    valid_until = forms.DateTimeField(required=False, widget=forms.DateTimeInput(attrs={"type": "datetime-local"}))
    networks = forms.CharField(
        required=False, label="From networks", help_text="Like 10.0.0.0/8. Empty: from anywhere."
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        fields: Any = self.fields
        fields["roles"].choices = _roles()
        fields["keys"].choices = _keys(self.initial.get("keys") or ())

    def clean_networks(self) -> tuple[str, ...]:
        try:
            return tuple(str(ip_network(word, strict=False)) for word in words_of(self.cleaned_data["networks"]))
        except ValueError as error:
            raise forms.ValidationError(f"{error}.") from None

    def clean(self) -> dict[str, Any]:
        """Refuse what would mean nothing."""
        data = super().clean() or self.cleaned_data
        if not data.get("any_role") and not data.get("roles"):
            self.add_error("roles", "Choose roles, or every role.")
        if bool(data.get("from_time")) != bool(data.get("to_time")):
            self.add_error("to_time", "Give both ends, or none.")
        return data

    def spec(self, conditions: tuple[ConditionSpec, ...], rule_id: int = 0) -> RuleSpec:
        """Return the rule as a value."""
        data = self.cleaned_data
        return RuleSpec(
            **self.plain(),
            kinds=tuple(kind for kind in vocabulary.KINDS if kind in data["kinds"]),
            pattern=data["pattern"],
            roles=None if data["any_role"] else frozenset(data["roles"]),
            id=rule_id,
            keys=frozenset(data["keys"]) or None,
            upstreams=tuple(sorted(set(words_of(data["upstreams"])))),
            conditions=conditions,
            window=WindowSpec(
                tuple(day for day in vocabulary.WEEKDAYS if day in data["days"]),
                data["from_time"], data["to_time"], data["time_zone"] or "UTC", data["valid_from"], data["valid_until"],
            ),
            networks=data["networks"],
        )  # fmt: skip


def rule_initial(rule: RuleSpec) -> dict[str, Any]:
    """Return a rule as the form shows it."""
    return {
        **plain(rule), "any_role": rule.roles is None, "roles": sorted(rule.roles or ()), "keys": sorted(rule.keys or ()),
        "kinds": list(rule.kinds), "pattern": rule.pattern, "upstreams": ", ".join(rule.upstreams), "days": list(rule.window.days),
        "from_time": rule.window.from_time, "to_time": rule.window.to_time, "time_zone": rule.window.zone,
        "valid_from": rule.window.valid_from, "valid_until": rule.window.valid_until, "networks": ", ".join(rule.networks),
    }  # fmt: skip


class ConditionForm(forms.Form):
    """One condition of a rule."""

    subject = forms.ChoiceField(
        choices=[("arguments", "argument"), ("annotations", "annotation"), ("name", "the name")], required=False
    )
    path = forms.CharField(
        required=False,
        max_length=300,
        widget=forms.TextInput(attrs={"placeholder": "amount, filter.table, items[].path"}),
    )
    quantifier = forms.ChoiceField(choices=[("", "–"), ("every", "every"), ("any", "any")], required=False)
    operator = forms.ChoiceField(choices=[("", "Choose"), *OPERATORS.items()], required=False)
    value = forms.CharField(
        required=False, max_length=2000, strip=False, widget=forms.TextInput(attrs={"placeholder": "100, EU, [1, 2]"})
    )

    def clean(self) -> dict[str, Any]:
        """Read the value as the operator wants it."""
        data = super().clean() or self.cleaned_data
        data["spec"] = None
        operator = data.get("operator", "")
        if not operator:
            if data.get("path") or data.get("value"):
                self.add_error("operator", "Choose what must hold.")
            return data
        subject = data.get("subject") or "arguments"
        if subject != "name" and not data.get("path"):
            self.add_error("path", "Say which one.")
        kind = vocabulary.OPERATORS[operator]
        try:
            value = _value(data.get("value", ""), kind)
        except ValueError as error:
            self.add_error("value", str(error))
            return data
        path = "" if subject == "name" else data.get("path", "")
        data["spec"] = ConditionSpec(operator, value, path, subject, data.get("quantifier", ""))
        return data


def _value(text: str, kind: str | None) -> Any:
    if kind is None:
        return None
    if kind == "string":
        if not text:
            raise ValueError("Give a value.")
        return text
    if kind == "array":
        value = (
            _json(text)
            if text.lstrip().startswith("[")
            else [_scalar(word.strip()) for word in text.split(",") if word.strip()]
        )
        if not isinstance(value, list) or not value:
            raise ValueError("Give values, like EU, US or [1, 2].")
        return tuple(value)
    value = _scalar(text)
    if kind == "number" and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ValueError("Give a number.")
    return value


def _scalar(text: str) -> Any:
    """Read a number, true, false or a quoted text; anything else is text as it stands."""
    try:
        value = json.loads(text)
    except ValueError:
        if not text:
            raise ValueError("Give a value.") from None
        return text
    return value if isinstance(value, str | int | float | bool) else text


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise ValueError("That list cannot be read; write it like [1, 2].") from None


ConditionForms = forms.formset_factory(ConditionForm, extra=2, max_num=30, absolute_max=60)


def condition_initial(condition: ConditionSpec) -> dict[str, Any]:
    """Return a condition as its form shows it."""
    value = condition.value
    if isinstance(value, list | tuple):
        shown = json.dumps(list(value), ensure_ascii=False)
    elif isinstance(value, str):
        # Text that would be read back as something else is quoted.
        kept = vocabulary.OPERATORS[condition.operator] == "string" or _reads_as_text(value)
        shown = value if kept else json.dumps(value, ensure_ascii=False)
    else:
        shown = "" if value is None else json.dumps(value)
    return {
        "subject": condition.subject, "path": condition.path, "quantifier": condition.quantifier,
        "operator": condition.operator, "value": shown,
    }  # fmt: skip


def _reads_as_text(value: str) -> bool:
    try:
        return _scalar(value) == value and isinstance(_scalar(value), str)
    except ValueError:
        return False


@takes(LIMIT)
class LimitForm(SpecForm):
    """A limit: how many, in how long, counted for whom."""

    role = forms.ChoiceField(required=False, label="Only role")
    key = forms.ChoiceField(required=False, label="Only key")
    upstream = forms.CharField(required=False, max_length=63, label="Only upstream")
    kind = forms.ChoiceField(
        required=False,
        choices=[
            ("", "calls of tools, prompts and resources"),
            *((word, f"{KIND_WORDS[word]} only") for word in vocabulary.KINDS),
        ],
        label="Counts",
    )
    pattern = forms.CharField(
        required=False, max_length=vocabulary.MAX_PATTERN, strip=False, label="Names like", help_text="Empty: any name."
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        fields: Any = self.fields
        present = self.initial.get("key")
        fields["role"].choices = [("", "any"), *_roles()]
        fields["key"].choices = [("", "any"), *_keys([present] if present else ())]

    def clean(self) -> dict[str, Any]:
        """Refuse what the stored form would refuse, in words."""
        data = super().clean() or self.cleaned_data
        if not data.get("kind") and (data.get("pattern") or data.get("is_default") or "tool" in data.get("per", ())):
            self.add_error("kind", "A limit that tells names apart says of which kind they are.")
        if data.get("is_default") and data.get("pattern"):
            self.add_error("is_default", "A default names no tool.")
        for row in exceeding(data):
            self.add_error(row.name, f"Not more than the {row.within}.")
        return data

    def spec(self, limit_id: int = 0) -> LimitSpec:
        """Return the limit as a value."""
        data = self.cleaned_data
        return LimitSpec(
            **self.plain(), id=limit_id, key=data["key"] or None, role=data["role"] or None, upstream=data["upstream"],
            kind=data["kind"], pattern=data["pattern"],
        )  # fmt: skip


def limit_initial(limit: LimitSpec) -> dict[str, Any]:
    """Return a limit as the form shows it."""
    return {
        **plain(limit), "role": limit.role or "", "key": limit.key or "", "upstream": limit.upstream, "kind": limit.kind,
        "pattern": limit.pattern,
    }  # fmt: skip
