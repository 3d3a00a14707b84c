"""Before the most dangerous acts somebody proves again that it is they who logged in, unless they just did."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from django import forms
from django.contrib.auth import authenticate
from django.http import HttpRequest

from core import registry

__all__ = ["LASTS", "ProofForm", "note", "proved"]

LASTS = timedelta(minutes=10)
KEY = "sentinel_proved_at"


def note(request: HttpRequest) -> None:
    """Remember that the person of this session has just given what a log-in asks of them."""
    request.session[KEY] = int(time.time())


def proved(request: HttpRequest) -> bool:
    """Whether the person of this session gave it a short while ago."""
    at = request.session.get(KEY)
    return isinstance(at, int) and 0 <= time.time() - at < LASTS.total_seconds()


class ProofForm(forms.Form):
    """The acting person's own password, and a code from whoever has a second factor, when the last time is too long ago.

    Both go through the same doors as at a log-in, so that guessing here is throttled and recorded as it is there.
    """

    own_password = forms.CharField(
        strip=False,
        required=False,
        label="Your own password",
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
        help_text="Asked again because this cannot be undone by a click, and you last gave it a while ago.",
    )
    own_code = forms.CharField(
        required=False,
        max_length=40,
        label="Code of your second factor",
        widget=forms.TextInput(attrs={"autocomplete": "one-time-code", "autocapitalize": "none"}),
        help_text="From your authenticator, or a recovery code. Each is good once.",
    )

    def __init__(self, request: HttpRequest, *, asked: bool | None = None, always: bool = False) -> None:
        """`asked` says whether the form was shown before; without it every POST is an answer to it."""
        answered = request.method == "POST" if asked is None else asked
        super().__init__(request.POST if answered else None)
        self.request = request
        self.needed = always or not proved(request)
        self.coded = self.needed and registry.asks_code(request.user)
        if always:
            self.fields["own_password"].help_text = "Asked because this changes how you log in."

    def clean_own_password(self) -> str:
        """Check it; one that is given without being needed must be right too."""
        password: str = self.cleaned_data["own_password"]
        user: Any = self.request.user
        if not password and not self.needed:
            return ""
        if not user.has_usable_password():
            raise forms.ValidationError("You have no password here: log out, log in again, and repeat this.")
        if not password:
            raise forms.ValidationError("Give your own password to do this.")
        found = authenticate(self.request, **{user.USERNAME_FIELD: user.get_username(), "password": password})
        if found is None or found.pk != user.pk:
            raise forms.ValidationError("That is not your password.")
        return password

    def clean(self) -> dict[str, Any]:
        """Take the code after the password alone was right, and remember that both were."""
        cleaned = super().clean() or {}
        if self.errors:
            return cleaned
        if self.coded:
            code = cleaned.get("own_code", "")
            problem = registry.give_code(self.request, code) if code else "Give a code to do this."
            if problem:
                self.add_error("own_code", problem)
                return cleaned
        if cleaned.get("own_password"):
            note(self.request)
        return cleaned
