"""The forms of rules and limits: what people choose, turned into the values that the services take."""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import Any

from django import forms

from core.admin.zones import ZoneField
from policies import vocabulary
from policies.documents.sentences import OPERATORS
from policies.models import ApiKey, Role
from policies.specs import ConditionSpec, LimitSpec, RuleSpec, WindowSpec

__all__ = ["ConditionForms", "LimitForm", "RuleForm"]

KIND_WORDS = {"tool": "tools", "prompt": "prompts", "resource": "resources", "method": "methods"}
DAY_WORDS = [
    ("mon", "Mon"),
    ("tue", "Tue"),
    ("wed", "Wed"),
    ("thu", "Thu"),
    ("fri", "Fri"),
    ("sat", "Sat"),
    ("sun", "Sun"),
]


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.replace(",", " ").split() if word)


class RuleForm(forms.Form):
    """A rule: who, what, when, and what the caller is told."""

    effect = forms.ChoiceField(
        choices=[("allow", "allow"), ("deny", "deny")], widget=forms.RadioSelect, initial="allow"
    )
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
    reason = forms.CharField(
        required=False,
        max_length=vocabulary.MAX_REASON,
        label="What a refused caller is told",
        help_text="Of rules that deny; one that allows refuses nobody.",
    )
    name = forms.CharField(required=False, max_length=100, help_text="Shown in events.")
    note = forms.CharField(required=False, max_length=1000, help_text="For colleagues; no caller ever sees it.")
    enabled = forms.BooleanField(required=False, initial=True, label="Switched on")
    observe = forms.BooleanField(
        required=False, label="Only observe", help_text="Decides nothing; what it would do stands in the event."
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        fields: Any = self.fields
        fields["roles"].choices = [(name, name) for name in Role.objects.values_list("name", flat=True)]
        fields["keys"].choices = [
            (key.prefix, f"{key.name} ({key.prefix})")
            for key in ApiKey.objects.filter(duty=None, revoked_at=None).only("name", "public_id")[:500]
        ]
        chosen = set(self.initial.get("keys") or ()) - {prefix for prefix, _ in fields["keys"].choices}
        fields["keys"].choices += [(prefix, f"{prefix} (no longer live)") for prefix in sorted(chosen)]

    def clean_networks(self) -> tuple[str, ...]:
        """Read networks."""
        try:
            return tuple(str(ip_network(word, strict=False)) for word in _words(self.cleaned_data["networks"]))
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
            effect=data["effect"],
            kinds=tuple(kind for kind in vocabulary.KINDS if kind in data["kinds"]),
            pattern=data["pattern"],
            roles=None if data["any_role"] else frozenset(data["roles"]),
            id=rule_id,
            name=data["name"],
            keys=frozenset(data["keys"]) or None,
            upstreams=tuple(sorted(set(_words(data["upstreams"])))),
            conditions=conditions,
            window=WindowSpec(
                tuple(day for day in vocabulary.WEEKDAYS if day in data["days"]),
                data["from_time"], data["to_time"], data["time_zone"] or "UTC", data["valid_from"], data["valid_until"],
            ),
            networks=data["networks"],
            reason=data["reason"],
            note=data["note"],
            enabled=data["enabled"],
            observe=data["observe"],
        )  # fmt: skip


def rule_initial(rule: RuleSpec) -> dict[str, Any]:
    """Return a rule as the form shows it."""
    return {
        "effect": rule.effect, "any_role": rule.roles is None, "roles": sorted(rule.roles or ()), "keys": sorted(rule.keys or ()),
        "kinds": list(rule.kinds), "pattern": rule.pattern, "upstreams": ", ".join(rule.upstreams), "days": list(rule.window.days),
        "from_time": rule.window.from_time, "to_time": rule.window.to_time, "time_zone": rule.window.zone,
        "valid_from": rule.window.valid_from, "valid_until": rule.window.valid_until, "networks": ", ".join(rule.networks),
        "reason": rule.reason, "name": rule.name, "note": rule.note, "enabled": rule.enabled, "observe": rule.observe,
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


class LimitForm(forms.Form):
    """A limit: how many, in how long, counted for whom."""

    requests = forms.IntegerField(min_value=1, max_value=1_000_000, initial=60)
    window_seconds = forms.IntegerField(min_value=1, max_value=31 * 86400, initial=60, label="In any … seconds")
    burst = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=1_000_000,
        label="At once at most",
        help_text="Empty: all may come at once.",
    )
    per = forms.MultipleChoiceField(
        required=False, choices=[(word, word) for word in vocabulary.LIMIT_IDENTITIES], widget=forms.CheckboxSelectMultiple,
        label="Counted for each", help_text="None chosen: one count for all.",
    )  # fmt: skip
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
    is_default = forms.BooleanField(required=False, label="Gives way to a limit that names the tool")
    name = forms.CharField(required=False, max_length=100)
    enabled = forms.BooleanField(required=False, initial=True, label="Switched on")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        fields: Any = self.fields
        fields["role"].choices = [("", "any"), *((name, name) for name in Role.objects.values_list("name", flat=True))]
        keys = [
            (key.prefix, f"{key.name} ({key.prefix})")
            for key in ApiKey.objects.filter(duty=None, revoked_at=None).only("name", "public_id")[:500]
        ]
        present = self.initial.get("key")
        if present and present not in dict(keys):
            keys.append((present, f"{present} (no longer live)"))
        fields["key"].choices = [("", "any"), *keys]

    def clean(self) -> dict[str, Any]:
        """Refuse what the stored form would refuse, in words."""
        data = super().clean() or self.cleaned_data
        if not data.get("kind") and (data.get("pattern") or data.get("is_default") or "tool" in data.get("per", ())):
            self.add_error("kind", "A limit that tells names apart says of which kind they are.")
        if data.get("is_default") and data.get("pattern"):
            self.add_error("is_default", "A default names no tool.")
        if data.get("burst") and data.get("requests") and data["burst"] > data["requests"]:
            self.add_error("burst", "Not more than the requests.")
        return data

    def spec(self, limit_id: int = 0) -> LimitSpec:
        """Return the limit as a value."""
        data = self.cleaned_data
        return LimitSpec(
            requests=data["requests"], window_seconds=data["window_seconds"],
            per=tuple(word for word in vocabulary.LIMIT_IDENTITIES if word in data["per"]), id=limit_id, name=data["name"],
            key=data["key"] or None, role=data["role"] or None, upstream=data["upstream"], kind=data["kind"],
            pattern=data["pattern"], is_default=data["is_default"], burst=data["burst"], enabled=data["enabled"],
        )  # fmt: skip


def limit_initial(limit: LimitSpec) -> dict[str, Any]:
    """Return a limit as the form shows it."""
    return {
        "requests": limit.requests, "window_seconds": limit.window_seconds, "burst": limit.burst, "per": list(limit.per),
        "role": limit.role or "", "key": limit.key or "", "upstream": limit.upstream, "kind": limit.kind, "pattern": limit.pattern,
        "is_default": limit.is_default, "name": limit.name, "enabled": limit.enabled,
    }  # fmt: skip
