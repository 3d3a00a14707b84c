"""The policy as a whole: exported, checked, compared, applied, explained, replayed."""

from __future__ import annotations

import time
from typing import Any, NoReturn

from django.core.exceptions import ValidationError
from django.db import transaction
from rest_framework.request import Request
from rest_framework.response import Response

from audit.export.formats import moment
from core.api.fields import read
from core.api.json import Parser, YamlText
from core.api.problems import invalid, refused, wrong
from core.api.views import FIELDS, ApiView, Operation, Parameter, actor_of
from policies.api.idempotency import once
from policies.api.serializers import policy as forms
from policies.documents.diff import plan
from policies.documents.reader import Document, DocumentError, parse
from policies.engine import schemas
from policies.engine.compiled import PolicyError, PolicySet
from policies.engine.types import ABSENT, Context, Principal, Target
from policies.models import PolicyVersion
from policies.services import keys as key_acts
from policies.services import policy as policy_acts
from policies.simulate.explain import explain_known
from policies.specs import numbered

__all__ = ["Apply", "Check", "Diff", "Explain", "Policy", "PolicyView", "applied_form", "policy_form", "read_document"]

YAML = ("application/yaml",)
MOST_CHANGES = 10_000
SEE = ("policies.view_role", "policies.view_rule", "policies.view_ratelimit")
EDIT = tuple(
    f"policies.{act}_{model}" for model in ("role", "rule", "ratelimit") for act in ("add", "change", "delete")
)


def read_document(text: str) -> Document:
    """Read a policy, or refuse it with every mistake and its place."""
    try:
        return parse(text)
    except DocumentError as error:
        _unread(error.problems)


def _unread(problems: list[str]) -> NoReturn:
    errors = [wrong("document", words) for words in problems]
    raise invalid(*errors, detail=f"The policy cannot be read: {problems[0]}")


class PolicyView(ApiView):
    """Takes a policy as JSON or as it is."""

    parser_classes = [Parser, YamlText]


def policy_form() -> dict[str, Any]:
    """Return the stored policy as it is answered."""
    spec = policy_acts.current_spec()
    version = PolicyVersion.objects.filter(number=spec.version).first() or PolicyVersion.objects.first()
    return {
        "version": spec.version,
        "at": moment(version.at) if version else None,
        "author": version.author if version else "",
        "origin": version.origin if version else "",
        "document": policy_acts.export(),
    }


class Policy(PolicyView):
    """The policy as stored."""

    operations = {
        "get": Operation(
            id="exportPolicy",
            tag="policy",
            summary="Export the policy as YAML",
            description="Its ETag goes with `If-Match` of `applyPolicy`, so that nobody's change is overwritten unseen.",
            permissions=SEE,
            query=(FIELDS,),
            response=forms.PolicySerializer,
        ),
        "put": Operation(
            id="putPolicy",
            tag="policy",
            summary="Make a document the whole policy",
            description="The same as `applyPolicy`.",
            permissions=EDIT,
            query=(
                Parameter(name="dry_run", description="Only say what would change.", kind="boolean", default=False),
            ),
            request=forms.DraftSerializer,
            request_types=YAML,
            response=forms.AppliedSerializer,
            problems=(409,),
            conditional=True,
        ),
    }

    def get(self, request: Request) -> Response:
        return self.one(policy_form())

    def put(self, request: Request) -> Response:
        return apply(self, request)


class Apply(PolicyView):
    """A document that becomes the policy."""

    operations = {
        "post": Operation(
            id="applyPolicy",
            tag="policy",
            summary="Make a document the whole policy",
            description="All of roles, rules, limits and audit levels: what the document does not have is removed. Everything, "
            "or nothing when refused. A role that live keys hold cannot be dropped.",
            permissions=EDIT,
            query=(
                Parameter(name="dry_run", description="Only say what would change.", kind="boolean", default=False),
            ),
            request=forms.DraftSerializer,
            request_types=YAML,
            response=forms.AppliedSerializer,
            problems=(409,),
            creates=True,
            conditional=True,
        )
    }

    def post(self, request: Request) -> Response:
        return once(request, lambda: apply(self, request))


@transaction.atomic
def apply(view: ApiView, request: Request) -> Response:
    document = read_document(read(forms.DraftSerializer, request.data)["document"])
    policy_acts.lock_policy()
    view.check_match(policy_form())
    try:
        applied = policy_acts.apply_document(
            document, actor=actor_of(request), dry_run=view.query["dry_run"], origin="API"
        )
    except policy_acts.PolicyRefused as error:
        raise refused(error, "conflict") from None
    return Response(applied_form(applied))


def applied_form(applied: policy_acts.Applied) -> dict[str, Any]:
    """Return what was applied, or would be, as it is answered."""
    return {
        "changed": not applied.plan.empty,
        "dry_run": applied.dry_run,
        "policy_version": applied.version,
        "changes": applied.plan.changes()[:MOST_CHANGES],
        "diff": applied.plan.diff,
    }


class Check(PolicyView):
    """A document that is only looked at."""

    operations = {
        "post": Operation(
            id="checkPolicy",
            tag="policy",
            summary="Check a document",
            description="Reads and compiles it, and holds its conditions against the tools' schemas.",
            permissions=SEE,
            request=forms.DraftSerializer,
            request_types=YAML,
            response=forms.CheckedSerializer,
        )
    }

    def post(self, request: Request) -> Response:
        spec = read_document(read(forms.DraftSerializer, request.data)["document"]).spec
        try:
            PolicySet(numbered(spec))
        except PolicyError as error:
            _unread([str(error)])
        problems = schemas.complaints(spec.rules)
        if problems:
            _unread(problems)
        counts = {
            "roles": len(spec.roles), "rules": len(spec.rules), "limits": len(spec.limits), "audit": len(spec.audit),
        }  # fmt: skip
        return Response({"valid": True, **counts})


class Diff(PolicyView):
    """A document compared with what is stored."""

    operations = {
        "post": Operation(
            id="diffPolicy",
            tag="policy",
            summary="Compare a document with the stored policy",
            permissions=SEE,
            request=forms.DraftSerializer,
            request_types=YAML,
            response=forms.AppliedSerializer,
        )
    }

    def post(self, request: Request) -> Response:
        document = read_document(read(forms.DraftSerializer, request.data)["document"])
        present = policy_acts.current_spec()
        return Response(applied_form(policy_acts.Applied(plan(present, document.spec), present.version, True)))


class Explain(ApiView):
    """Why is something allowed or denied?"""

    operations = {
        "post": Operation(
            id="explainPolicy",
            tag="policy",
            summary="Explain a decision",
            description="The gateway's own decision about a call, the rules that came close, and the limits that count it. "
            "Nothing is executed.",
            permissions=("policies.explain_policy",),
            request=forms.QuestionSerializer,
            response=forms.ExplanationSerializer,
        )
    }

    def post(self, request: Request) -> Response:
        asked = read(forms.QuestionSerializer, request.data)
        policy = PolicySet(policy_acts.current_spec())
        principal, notes = _principal(asked, policy)
        arguments = asked.get("arguments", ABSENT)
        if arguments is not ABSENT and not isinstance(arguments, dict):
            raise invalid(wrong("arguments", "An object."))
        annotations = asked.get("annotations")
        if annotations is not None and not isinstance(annotations, dict):
            raise invalid(wrong("annotations", "An object."))
        target = Target(asked["kind"], asked["upstream"], asked["name"], arguments, annotations)
        at = asked["at"].timestamp() if asked.get("at") else time.time()
        told, _ = explain_known(policy, principal, target, Context(at, asked.get("client_ip")))
        return Response({**told.as_dict(), "notes": notes})


def _principal(asked: dict[str, Any], policy: PolicySet) -> tuple[Principal, list[str]]:
    named, role = asked.get("key"), asked.get("role")
    if bool(named) == bool(role):
        raise invalid(wrong("key", "Say a key or a role, and not both."))
    if role:
        if role not in policy.roles:
            raise invalid(wrong("role", "There is no such role."))
        return Principal(None, "", "", role), []
    try:
        key = key_acts.find(named or "")
    except ValidationError as error:
        raise invalid(wrong("key", " ".join(error.messages))) from None
    return key_acts.asked_about(key)
