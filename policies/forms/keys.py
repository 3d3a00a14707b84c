"""The forms of the key pages."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_network
from typing import Any

from django import forms
from django.utils import timezone

from policies import vocabulary
from policies.models import Role

__all__ = ["KeyForm", "NewKeyForm", "RevokeForm", "RotateForm", "words_of"]

EXPIRY = [("30d", "in 30 days"), ("90d", "in 90 days"), ("365d", "in a year"), ("", "never"), ("date", "on a day …")]
OVERLAPS = [
    ("0", "at once"),
    ("900", "in 15 minutes"),
    ("3600", "in an hour"),
    ("86400", "in a day"),
    ("604800", "in 7 days"),
]


def words_of(text: str) -> list[str]:
    """Split what people type into a list: commas, spaces and lines."""
    return [word for word in text.replace(",", " ").split() if word]


def _networks(text: str) -> list[str]:
    found = []
    for word in words_of(text):
        try:
            found.append(str(ip_network(word, strict=False)))
        except ValueError:
            raise forms.ValidationError(f"“{word[:60]}” is not a network; write it like 10.0.0.0/8.") from None
    return found


class KeyForm(forms.Form):
    """What may be changed about a key."""

    name = forms.CharField(max_length=100, help_text="Shown in every event: who or what calls with it.")
    role = forms.ModelChoiceField(Role.objects.all(), required=False, empty_label="Choose a role")
    owner = forms.CharField(max_length=200, required=False, help_text="A person or team to ask about it.")
    description = forms.CharField(max_length=500, required=False)
    expires_at = forms.DateTimeField(required=False, widget=forms.DateTimeInput(attrs={"type": "datetime-local"}))
    networks = forms.CharField(
        required=False, max_length=2000, help_text="Where it may be used from, like 10.0.0.0/8. Empty: anywhere."
    )
    upstreams = forms.CharField(required=False, max_length=2000, help_text="Which upstreams it may reach. Empty: all.")
    query_allowed = forms.BooleanField(required=False, label="May be sent in the address (?api_key=)")

    def clean_networks(self) -> list[str]:
        return _networks(self.cleaned_data["networks"])

    def clean_upstreams(self) -> list[str]:
        return words_of(self.cleaned_data["upstreams"])

    def clean_expires_at(self) -> Any:
        value = self.cleaned_data["expires_at"]
        if value and value <= timezone.now() and "expires_at" in self.changed_data:
            raise forms.ValidationError("That moment has passed. To end a key now, revoke it.")
        return value


class NewKeyForm(KeyForm):
    """What a new key needs, on one short page."""

    holds = forms.ChoiceField(
        choices=[("role", "an agent"), ("duty", "the API")], initial="role", required=False, widget=forms.RadioSelect
    )
    duty = forms.ChoiceField(required=False)
    expires = forms.ChoiceField(choices=EXPIRY, required=False, initial="90d")
    query_allowed = forms.BooleanField(required=False, initial=True, label="May be sent in the address (?api_key=)")

    def __init__(self, *args: Any, duties: list[str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [(word, word) for word in vocabulary.DUTIES if word in (duties or ())]
        self.fields["duty"].choices = [("", "Choose a duty"), *choices]  # type: ignore[attr-defined]
        if choices:
            ends = [(word, f"{label} (an agent's key only)" if not word else label) for word, label in EXPIRY]
            self.fields["expires"].choices = ends  # type: ignore[attr-defined]
        self.fields["expires_at"].label = "Day"

    def clean(self) -> dict[str, Any]:
        """A key holds a role or a duty, and not both."""
        data = super().clean() or self.cleaned_data
        if data.get("holds") == "duty":
            data["role"] = None
            if not data.get("duty"):
                self.add_error("duty", "Choose what the key may do in the API.")
        else:
            data["duty"] = ""
            if not data.get("role") and "role" not in self.errors:
                self.add_error("role", "Choose a role: it says what the key may call.")
        chosen = data.get("expires")
        if data.get("holds") == "duty" and not chosen and "expires" not in self.errors:
            self.add_error("expires", "A key for the API always ends; choose when.")
        if chosen == "date":
            if not data.get("expires_at") and "expires_at" not in self.errors:
                self.add_error("expires_at", "Choose the day.")
        elif chosen:
            data["expires_at"] = timezone.now() + timedelta(days=int(chosen[:-1]))
        else:
            data["expires_at"] = None
        return data


class RotateForm(forms.Form):
    """How long the old secret stays good."""

    overlap = forms.ChoiceField(choices=OVERLAPS, initial="3600", label="The old secret ends")


class RevokeForm(forms.Form):
    """Why a key is revoked."""

    reason = forms.CharField(max_length=500, widget=forms.TextInput, help_text="Kept with the key and in the event.")
