"""The versions of the policy in the admin: what each changed, and going back to one."""

from __future__ import annotations

from difflib import unified_diff
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from core.access.actors import actor
from core.access.reauthentication import ProofForm
from core.admin.base import Pages
from policies.models import PolicyVersion


@admin.register(PolicyVersion)
class PolicyVersionAdmin(Pages):
    """Every version the policy had, who made it and what it changed."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Changes of the policy make versions."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """What was is not changed."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def may_go_back(self, request: HttpRequest) -> bool:
        """Going back changes roles, rules and limits."""
        return bool(
            request.user.has_perms(["policies.change_role", "policies.change_rule", "policies.change_ratelimit"])
        )

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """List versions, newest first."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        before = request.GET.get("before", "")
        versions = PolicyVersion.objects.defer("document")
        if before.isdecimal() and len(before) < 18:
            versions = versions.filter(number__lt=int(before))
        found = list(versions.order_by("-number")[:51])
        context = {
            **self.admin_site.each_context(request),
            "title": "Versions of the policy",
            "versions": [(version, _what(version.diff)) for version in found[:50]],
            "older": found[49].number if len(found) > 50 else None,
        }
        return render(request, "admin/policies/versions.html", context)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show a version; go back to it."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        version = PolicyVersion.objects.filter(pk=_number(object_id)).first()
        if version is None:
            raise Http404
        newest = PolicyVersion.objects.order_by("-number").values_list("number", flat=True).first()
        problems: list[str] = []
        if request.method == "POST":
            if not self.may_go_back(request):
                raise PermissionDenied
            proof = ProofForm(request, asked="confirmed" in request.POST)
            if not proof.is_valid():
                return self.confirm(request, version, proof)
            from policies.services import policy as policy_acts

            try:
                applied = policy_acts.roll_back(version.number, actor=actor(request))
            except (ValidationError, ValueError) as error:
                problems = list(error.messages) if isinstance(error, ValidationError) else [str(error)]
            else:
                self.log_change(request, version, "gone back to")
                messages.success(
                    request, f"The policy is again as in version {version.number}; this is version {applied.version}."
                )
                return redirect("admin:policies_policyversion_changelist")
        context = {
            **self.admin_site.each_context(request),
            "title": f"Version {version.number}",
            "version": version,
            "diff": [(line[:1], line[1:]) for line in version.diff.splitlines()],
            "present": version.number == newest,
            "problems": problems,
            "may_go_back": self.may_go_back(request),
        }
        return render(request, "admin/policies/version.html", context)

    def confirm(self, request: HttpRequest, version: PolicyVersion, proof: ProofForm) -> HttpResponse:
        """Show what going back changes, and ask once more."""
        from policies.services import policy as policy_acts

        lines = unified_diff(policy_acts.export().splitlines(), version.document.splitlines(), lineterm="", n=2)
        context = {
            **self.admin_site.each_context(request),
            "title": f"Go back to version {version.number}?",
            "about": "Every role, rule and limit becomes what it was then, on all workers within a second.",
            "changes": [(line[:1], line[1:]) for line in list(lines)[2:] if not line.startswith("@@")],
            "act": "Go back to this version",
            "back": reverse("admin:policies_policyversion_change", args=[version.number]),
            "proof": proof,
        }
        return render(request, "admin/confirm.html", context)


def _what(diff: str) -> str:
    """Return the lines that changed as one line."""
    return " ".join(line for line in diff.splitlines()[2:] if line[:1] in ("+", "-"))


def _number(object_id: str) -> int:
    if not object_id.isdecimal() or len(object_id) > 18:
        raise Http404
    return int(object_id)
