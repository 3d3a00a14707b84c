"""The pages of one's own password and second factor: setting it up, giving it, its recovery codes, turning it off."""

from __future__ import annotations

import base64
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.auth import authenticate
from django.contrib.auth.forms import PasswordChangeForm
from django.contrib.auth.views import PasswordChangeView
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.urls import reverse_lazy
from django.utils.http import url_has_allowed_host_and_scheme
from django_otp.plugins.otp_totp.models import TOTPDevice

from audit.services.acts import record
from core.access import reauthentication
from core.access.reauthentication import ProofForm
from core.admin import once
from core.admin.base import page
from sentinel.users import qr, second_factor

SHOWN = "recovery_codes"


def ask(request: HttpRequest) -> HttpResponseBase:
    """Set an authenticator up, or give the second factor where one is owed."""
    user: Any = request.user
    if second_factor.enrolled(user):
        return _own(request) if user.is_verified() else _give(request)
    return _set_up(request)


def _give(request: HttpRequest) -> HttpResponseBase:
    error, status, wait = "", 200, 0
    if request.method == "POST":
        given = second_factor.give(request, request.POST.get("token", ""))
        if given.right:
            reauthentication.note(request)
            left = second_factor.left(request.user)
            if left < 3:
                messages.warning(request, f"{left} recovery codes are left. Make new ones under Second factor.")
            return redirect(_next(request))
        error, wait = given.problem, given.wait
        status = 429 if wait else 200
    context = {"title": "Second factor", "error": error, "has_permission": False}
    response = page(request, "admin/second_factor_ask.html", context, status=status)
    if wait:
        response.headers["Retry-After"] = str(wait)
    return response


def _next(request: HttpRequest) -> str:
    """Return where this person wanted to go before a code was asked for."""
    wanted = request.session.pop(second_factor.NEXT, "")
    fits = isinstance(wanted, str) and wanted.startswith("/admin/")
    return wanted if fits and url_has_allowed_host_and_scheme(wanted, allowed_hosts=None) else "admin:index"


def _set_up(request: HttpRequest) -> HttpResponseBase:
    user: Any = request.user
    device = TOTPDevice.objects.filter(user_id=user.pk, confirmed=False).first()
    if device is None:
        device = TOTPDevice.objects.create(user=user, name="authenticator", confirmed=False)
    given = None
    if request.method == "POST":
        given = second_factor.confirm(request, device, request.POST.get("token", ""))
        if given.right:
            once.keep(request, SHOWN, second_factor.new_codes(user))
            messages.success(request, "The second factor is on. You are asked for a code at every log-in from now on.")
            return redirect("admin:second_factor_codes")
    secret = base64.b32encode(device.bin_key).decode().rstrip("=")
    context: dict[str, Any] = {
        "title": "Second factor",
        "error": given.problem if given else "",
        "demanded": second_factor.owed(user),
        # Once it is proven, the secret is shown to nobody.
        "secret": " ".join(secret[place : place + 4] for place in range(0, len(secret), 4)),
        "code": qr.svg(device.config_url),
    }
    return page(request, "admin/second_factor.html", context, status=429 if given and given.wait else 200)


def _own(request: HttpRequest) -> HttpResponseBase:
    context = {"title": "Second factor", "enrolled": True, "left": second_factor.left(request.user)}
    return page(request, "admin/second_factor.html", context)


def codes(request: HttpRequest) -> HttpResponseBase:
    """Show recovery codes that were just made, this once; or make new ones, for whoever proves who they are."""
    if not second_factor.enrolled(request.user):
        return redirect("admin:second_factor")
    made = once.take(request, SHOWN) if request.method == "GET" else None
    if made:
        return page(request, "admin/recovery_codes.html", {"title": "Recovery codes", "codes": made})
    form = ProofForm(request, always=True)
    if form.is_valid():
        with transaction.atomic():
            once.keep(request, SHOWN, second_factor.new_codes(request.user))
            record("admin.second_factor.codes_made", request, target=request.user.get_username())
        return redirect("admin:second_factor_codes")
    return _confirm(
        request,
        form,
        title="New recovery codes",
        about="The recovery codes there are stop working; ten new ones are shown once.",
        act="Make new codes",
    )


def codes_file(request: HttpRequest) -> HttpResponseBase:
    """Give the codes that the page shows back as a file; they are stored nowhere that they could be read from."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    shown = request.POST.getlist("code")[: second_factor.CODES]
    if not second_factor.usable(request.user, shown):
        raise PermissionDenied
    text = f"Recovery codes of {request.user.get_username()} for MCP Sentinel. Each lets you in once.\n\n"
    response = HttpResponse(text + "\n".join(shown) + "\n", content_type="text/plain; charset=utf-8")
    response.headers["Content-Disposition"] = 'attachment; filename="mcp-sentinel-recovery-codes.txt"'
    response.headers["Cache-Control"] = "no-store"
    return response


def turn_off(request: HttpRequest) -> HttpResponseBase:
    """Take one's own second factor away, for whoever gives it."""
    user: Any = request.user
    if not second_factor.enrolled(user):
        return redirect("admin:second_factor")
    form = ProofForm(request, always=True)
    if form.is_valid():
        with transaction.atomic():
            second_factor.forget(user)
            record("admin.second_factor.turned_off", request, target=user.get_username())
        messages.success(request, "Your second factor is off, and its recovery codes are gone.")
        return redirect("admin:second_factor")
    return _confirm(
        request,
        form,
        title="Turn off the second factor?",
        about="Your password alone lets you in afterwards. To move to another device, turn it off and set it up anew.",
        act="Turn it off",
    )


def _confirm(request: HttpRequest, form: ProofForm, **words: str) -> HttpResponse:
    return page(request, "admin/confirm.html", {**words, "back": "../", "proof": form})


class OwnPasswordForm(PasswordChangeForm):
    """One's own password: the present one goes through the door of a log-in, and so does a code where one is asked for."""

    own_code = ProofForm.base_fields["own_code"]

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.request = request
        self.coded = not reauthentication.proved(request) and second_factor.enrolled(request.user)
        if not self.coded:
            del self.fields["own_code"]

    def clean_old_password(self) -> str:
        """Check it as a log-in does: wrong ones are counted and recorded."""
        old: str = self.cleaned_data["old_password"]
        found = authenticate(self.request, **{self.user.USERNAME_FIELD: self.user.get_username(), "password": old})
        if found is None or found.pk != self.user.pk:
            raise forms.ValidationError(self.error_messages["password_incorrect"], code="password_incorrect")
        return old

    def clean(self) -> dict[str, Any]:
        """Take the code last: it is good once, and must not be spent on a form that is refused for something else."""
        cleaned: dict[str, Any] = super().clean() or {}
        if self.coded and not self.errors:
            code = cleaned.get("own_code", "")
            problem = second_factor.give(self.request, code).problem if code else "Give a code to do this."
            if problem:
                self.add_error("own_code", problem)
        return cleaned

    def save(self, commit: bool = True) -> Any:
        """Store it with its event; every other session of this person ends, because it was opened by the old one."""
        with transaction.atomic():
            user = super().save(commit)
            record("admin.user.own_password_changed", self.request, target=user.get_username())
        reauthentication.note(self.request)
        return user


class OwnPassword(PasswordChangeView):
    """The page on which somebody changes their own password."""

    form_class = OwnPasswordForm
    template_name = "registration/password_change_form.html"
    success_url = reverse_lazy("admin:password_change_done")

    def get_form_kwargs(self) -> dict[str, Any]:
        """Give the form the request, which throttling and events need."""
        return {**super().get_form_kwargs(), "request": self.request}
