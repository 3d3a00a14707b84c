"""Erasing the arguments and results of one event in the admin, where the law asks for it."""

from __future__ import annotations

from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from audit.models import AuditEvent
from audit.services import maintenance
from core.access.actors import actor
from core.access.reauthentication import ProofForm

PERMISSION = "audit.erase_payload"


class ReasonForm(forms.Form):
    """Why."""

    reason = forms.CharField(max_length=500, label="Why", help_text="It stands in the event of this act.")


def page(request: HttpRequest, event_id: UUID) -> HttpResponse:
    """Ask why, then empty the payloads; digests and all else stay, so that the log can still be proven."""
    if not request.user.has_perm(PERMISSION):
        raise PermissionDenied
    if not AuditEvent.objects.filter(pk=event_id).exists():
        raise Http404
    back = reverse("admin:audit_auditevent_change", args=[event_id])
    form = ReasonForm(request.POST if request.method == "POST" else None)
    proof = ProofForm(request)
    if form.is_valid() and proof.is_valid():
        maintenance.erase_payloads(event_id, reason=form.cleaned_data["reason"], actor=actor(request))
        messages.success(request, "Arguments and results of this event are gone; its digests stay.")
        return redirect(back)
    context = {
        **admin.site.each_context(request),
        "title": "Erase arguments and results?",
        "about": "They cannot be brought back. Their digests, the decision and everything else about the event stay, and so does"
        " an event that says who erased them and why. Journal segments hold them for a day at most; files that were exported"
        " are not touched.",
        "form": form,
        "proof": proof,
        "act": "Erase",
        "back": back,
    }
    return render(request, "admin/confirm.html", context)
