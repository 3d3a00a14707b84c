"""Every version of the policy, and the way back to one."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from audit.export.formats import moment
from core.api.problems import Problem, refused
from core.api.views import FIELDS, ApiView, Operation, actor_of, paging
from policies.api.idempotency import once
from policies.api.policy import EDIT, applied_form, policy_form
from policies.api.serializers import policy as forms
from policies.models import PolicyVersion
from policies.services import policy as policy_acts

__all__ = ["OneVersion", "Restore", "Versions"]


def _version(version: PolicyVersion) -> dict[str, Any]:
    return {"version": version.number, "at": moment(version.at), "author": version.author, "origin": version.origin}


class Versions(ApiView):
    """Every version of the policy."""

    operations = {
        "get": Operation(
            id="listVersions",
            tag="policy",
            summary="List the versions of the policy",
            permissions=("policies.view_policyversion",),
            query=paging(),
            response=forms.VersionSerializer,
            page=True,
        )
    }

    def get(self, request: Request) -> Response:
        """Return one page, the oldest first."""
        return self.page_of(PolicyVersion.objects.defer("document", "diff"), _version)


def _find_version(number: int) -> PolicyVersion:
    found = PolicyVersion.objects.filter(number=number).first()
    if found is None:
        raise Problem("not_found", "There is no such version.")
    return found


class OneVersion(ApiView):
    """One version of the policy."""

    operations = {
        "get": Operation(
            id="getVersion",
            tag="policy",
            summary="Read one version of the policy, and what it changed",
            permissions=("policies.view_policyversion",),
            query=(FIELDS,),
            response=forms.WholeVersionSerializer,
            problems=(404,),
        )
    }

    def get(self, request: Request, number: int) -> Response:
        found = _find_version(number)
        return self.one({**_version(found), "document": found.document, "diff": found.diff}, tag=False)


class Restore(ApiView):
    """An earlier version that becomes the policy again."""

    operations = {
        "post": Operation(
            id="restoreVersion",
            tag="policy",
            summary="Make an earlier version the policy again",
            description="As a new version; refused as `applyPolicy` is.",
            permissions=EDIT,
            response=forms.AppliedSerializer,
            problems=(404, 409),
            creates=True,
            conditional=True,
        )
    }

    def post(self, request: Request, number: int) -> Response:

        def act() -> Response:
            policy_acts.lock_policy()
            _find_version(number)
            self.check_match(policy_form())
            try:
                return Response(applied_form(policy_acts.roll_back(number, actor=actor_of(request))))
            except ValidationError as error:
                raise refused(error, "conflict") from None

        return once(request, act)
