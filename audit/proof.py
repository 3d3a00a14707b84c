"""Before the most dangerous acts somebody proves again that it is they who logged in, unless they just did."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from django import forms
from django.contrib.auth import authenticate
from django.http import HttpRequest

__all__ = ["LASTS", "ProofForm", "note", "proved"]

LASTS = timedelta(minutes=10)
KEY = "sentinel_proved_at"


def note(request: HttpRequest) -> None:
    """Remember that the person of this session has just given their password."""
    request.session[KEY] = int(time.time())


def proved(request: HttpRequest) -> bool:
    """Whether the person of this session gave their password a short while ago."""
    at = request.session.get(KEY)
    return isinstance(at, int) and 0 <= time.time() - at < LASTS.total_seconds()


class ProofForm(forms.Form):
    """The acting person's own password, asked for again when the last time is too long ago.

    It goes through the same door as a log-in, so that guessing here is throttled and recorded as it is there.
    """

    own_password = forms.CharField(
        strip=False,
        required=False,
        label="Your own password",
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
        help_text="Asked again because this cannot be undone by a click, and you last gave it a while ago.",
    )

    def __init__(self, request: HttpRequest, *, asked: bool | None = None) -> None:
        """`asked` says whether the form was shown before; without it every POST is an answer to it."""
        answered = request.method == "POST" if asked is None else asked
        super().__init__(request.POST if answered else None)
        self.request = request
        self.needed = not proved(request)

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
        note(self.request)
        return password
