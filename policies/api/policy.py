"""The policy as a whole: exported, checked, compared, applied, explained, replayed."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any, NoReturn
from uuid import UUID

from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from audit.acts import record_act
from audit.api.base import FIELDS, LIMIT, ApiView, Operation, Parameter, actor_of, paging
from audit.api.fields import read
from audit.api.json import Parser, Text
from audit.api.problems import Problem, refused
from audit.export import moment
from policies import schemas, services
from policies.api import jobs
from policies.api import serializers as forms
from policies.api.idempotency import once
from policies.compiled import PolicyError, PolicySet
from policies.document import Document, DocumentError, parse
from policies.engine import ABSENT, Context, Principal, Target
from policies.explain import explain
from policies.models import PolicyVersion, ReplayJob
from policies.planning import plan
from policies.specs import numbered

__all__ = [
    "Apply", "Check", "Diff", "Explain", "OneReplay", "OneVersion", "Policy", "Replays", "Restore", "Versions",
]  # fmt: skip

YAML = ("application/yaml",)
MOST_CHANGES = 10_000
MOST_GROUPS = 1_000
SEE = ("policies.view_role", "policies.view_rule", "policies.view_ratelimit")
EDIT = tuple(
    f"policies.{act}_{model}" for model in ("role", "rule", "ratelimit") for act in ("add", "change", "delete")
)


def read_document(text: str) -> Document:
    """Read a policy, or refuse it with every mistake and its place."""
    try:
        return parse(text)
    except DocumentError as error:
        _wrong(error.problems)


def _wrong(problems: list[str]) -> NoReturn:
    errors = [{"field": "document", "message": words, "code": "invalid"} for words in problems]
    raise Problem("invalid", f"The policy cannot be read: {problems[0]}", errors=errors)


class _PolicyView(ApiView):
    parser_classes = [Parser, Text]


def policy_form() -> dict[str, Any]:
    """Return the stored policy as it is answered."""
    spec = services.current_spec()
    version = PolicyVersion.objects.filter(number=spec.version).first() or PolicyVersion.objects.first()
    return {
        "version": spec.version,
        "at": moment(version.at) if version else None,
        "author": version.author if version else "",
        "origin": version.origin if version else "",
        "document": services.export(),
    }


class Policy(_PolicyView):
    """The policy as stored."""

    operations = {
        "get": Operation(
            id="exportPolicy",
            tag="policy",
            summary="Export the policy as YAML",
            description="Its ETag goes with `If-Match` of `applyPolicy`, so that nobody's change is overwritten unseen.",
            permissions=SEE,
            query=(FIELDS,),
            response=forms.Policy,
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
            request=forms.Draft,
            request_types=YAML,
            response=forms.Applied,
            problems=(409,),
            conditional=True,
        ),
    }

    def get(self, request: Request) -> Response:
        """Return it."""
        return self.one(policy_form())

    def put(self, request: Request) -> Response:
        """Apply a document."""
        return apply(self, request)


class Apply(_PolicyView):
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
            request=forms.Draft,
            request_types=YAML,
            response=forms.Applied,
            problems=(409,),
            creates=True,
            conditional=True,
        )
    }

    def post(self, request: Request) -> Response:
        """Apply it."""
        return once(request, lambda: apply(self, request))


@transaction.atomic
def apply(view: ApiView, request: Request) -> Response:
    """Apply the document of a request."""
    document = read_document(read(forms.Draft, request.data)["document"])
    services.lock_policy()
    view.check_match(policy_form())
    try:
        applied = services.apply_document(
            document, actor=actor_of(request), dry_run=view.query["dry_run"], origin="API"
        )
    except services.PolicyRefused as error:
        raise refused(error, "conflict") from None
    return Response(_applied(applied))


def _applied(applied: services.Applied) -> dict[str, Any]:
    return {
        "changed": not applied.plan.empty,
        "dry_run": applied.dry_run,
        "policy_version": applied.version,
        "changes": applied.plan.changes()[:MOST_CHANGES],
        "diff": applied.plan.diff,
    }


class Check(_PolicyView):
    """A document that is only looked at."""

    operations = {
        "post": Operation(
            id="checkPolicy",
            tag="policy",
            summary="Check a document",
            description="Reads and compiles it, and holds its conditions against the tools' schemas.",
            permissions=SEE,
            request=forms.Draft,
            request_types=YAML,
            response=forms.Checked,
        )
    }

    def post(self, request: Request) -> Response:
        """Check it."""
        spec = read_document(read(forms.Draft, request.data)["document"]).spec
        try:
            PolicySet(numbered(spec))
        except PolicyError as error:
            _wrong([str(error)])
        problems = [f"{rule.name or rule.label()}: {words}" for rule in spec.rules for words in schemas.problems(rule)]
        if problems:
            _wrong(problems)
        counts = {
            "roles": len(spec.roles), "rules": len(spec.rules), "limits": len(spec.limits), "audit": len(spec.audit),
        }  # fmt: skip
        return Response({"valid": True, **counts})


class Diff(_PolicyView):
    """A document compared with what is stored."""

    operations = {
        "post": Operation(
            id="diffPolicy",
            tag="policy",
            summary="Compare a document with the stored policy",
            permissions=SEE,
            request=forms.Draft,
            request_types=YAML,
            response=forms.Applied,
        )
    }

    def post(self, request: Request) -> Response:
        """Compare it."""
        document = read_document(read(forms.Draft, request.data)["document"])
        present = services.current_spec()
        return Response(_applied(services.Applied(plan(present, document.spec), present.version, True)))


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
            request=forms.Question,
            response=forms.Explanation,
        )
    }

    def post(self, request: Request) -> Response:
        """Explain it."""
        asked = read(forms.Question, request.data)
        policy = PolicySet(services.current_spec())
        principal, notes = _principal(asked, policy)
        arguments = asked.get("arguments", ABSENT)
        if arguments is not ABSENT and not isinstance(arguments, dict):
            raise Problem("invalid", errors=[{"field": "arguments", "message": "An object.", "code": "invalid"}])
        annotations = asked.get("annotations")
        if annotations is not None and not isinstance(annotations, dict):
            raise Problem("invalid", errors=[{"field": "annotations", "message": "An object.", "code": "invalid"}])
        if annotations is None and asked["kind"] == "tool":
            annotations = _annotations(asked["upstream"], asked["name"])
        target = Target(asked["kind"], asked["upstream"], asked["name"], arguments, annotations)
        at = asked["at"].timestamp() if asked.get("at") else time.time()
        told = explain(policy, principal, target, Context(at, asked.get("client_ip")))
        return Response({**told.as_dict(), "notes": notes})


def _principal(asked: dict[str, Any], policy: PolicySet) -> tuple[Principal, list[str]]:
    named, role = asked.get("key"), asked.get("role")
    if bool(named) == bool(role):
        raise Problem(
            "invalid", errors=[{"field": "key", "message": "Say a key or a role, and not both.", "code": "invalid"}]
        )
    if role:
        if role not in policy.roles:
            raise Problem("invalid", errors=[{"field": "role", "message": "There is no such role.", "code": "invalid"}])
        return Principal(None, "", "", role), []
    try:
        key = services.find(named or "")
    except ValidationError as error:
        raise Problem(
            "invalid", errors=[{"field": "key", "message": " ".join(error.messages), "code": "invalid"}]
        ) from None
    notes = []
    if not key.is_live:
        notes.append(f"The key {key.name} is {'revoked' if key.revoked_at else 'expired'}: every call is refused.")
    if key.duty:
        notes.append(f"The key {key.name} is administrative: it never passes the gateway.")
    held = key.role.name if key.role else key.former_role
    return Principal(key.pk, key.name, key.prefix, held, frozenset(key.upstreams)), notes


def _annotations(upstream: str, name: str) -> dict[str, Any] | None:
    ask = getattr(admin.site, "known_tools", None)
    for tool in ask(100_000) if ask else ():
        if tool[0] == upstream and tool[1] == name:
            return tool[2] if isinstance(tool[2], dict) else None
    return None


# -- versions


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
            response=forms.Version,
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
            response=forms.WholeVersion,
            problems=(404,),
        )
    }

    def get(self, request: Request, number: int) -> Response:
        """Return it."""
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
            response=forms.Applied,
            problems=(404, 409),
            creates=True,
            conditional=True,
        )
    }

    def post(self, request: Request, number: int) -> Response:
        """Restore it."""

        def act() -> Response:
            services.lock_policy()
            _find_version(number)
            self.check_match(policy_form())
            try:
                return Response(_applied(services.roll_back(number, actor=actor_of(request))))
            except ValidationError as error:
                raise refused(error, "conflict") from None

        return once(request, act)


# -- replays


def _replay(job: ReplayJob) -> dict[str, Any]:
    return {
        "id": str(job.pk),
        "state": job.state,
        "progress": 1.0 if job.state == "done" else round(job.done / job.of, 4) if job.of else 0.0,
        "created_at": moment(job.created_at),
        "created_by": job.created_by,
        "since": moment(job.since),
        "until": moment(job.until),
        "finished_at": moment(job.finished_at),
        "error": job.error,
        "report": {**job.report, "groups": job.report["groups"][:MOST_GROUPS]} if job.report else None,
    }


class Replays(_PolicyView):
    """Replays, each a job."""

    operations = {
        "get": Operation(
            id="listReplays",
            tag="policy",
            summary="List replays, the newest first",
            permissions=("policies.replay_policy",),
            query=(LIMIT, FIELDS),
            response=forms.Replay,
            page=True,
        ),
        "post": Operation(
            id="startReplay",
            tag="policy",
            summary="Decide past events again under a draft",
            description=f"Answers at once; `Location` tells how far it is and, in the end, what would change. At most {jobs.MOST} "
            "run at once.",
            permissions=("policies.replay_policy",),
            request=forms.ReplayRequest,
            request_types=YAML,
            response=forms.Replay,
            status=202,
            problems=(409,),
            creates=True,
        ),
    }

    def get(self, request: Request) -> Response:
        """Return the newest."""
        found = ReplayJob.objects.defer("document")[: self.query["limit"]]
        return self.many([_replay(jobs.settle(job)) for job in found])

    def post(self, request: Request) -> Response:
        """Start one."""
        asked = read(forms.ReplayRequest, request.data)
        read_document(asked["document"])
        until = asked.get("until") or timezone.now()
        since = asked.get("since") or until - timedelta(days=7)
        if since >= until:
            raise Problem("invalid", errors=[{"field": "since", "message": "It is before until.", "code": "invalid"}])

        def act() -> Response:
            services.lock_policy()  # so that two that come at once are counted one after the other
            if jobs.alive() >= jobs.MOST:
                raise Problem("conflict", f"{jobs.MOST} replays are running; wait for one to end, or cancel it.")
            actor = actor_of(request)
            job = ReplayJob.objects.create(
                created_by=actor.name[:150], document=asked["document"], since=since, until=until
            )
            about = {"since": moment(since), "until": moment(until)}
            record_act(method="admin.policy.replayed", actor=actor, target=str(job.pk), details=about)
            transaction.on_commit(lambda: jobs.start(job))
            return self.one(_replay(job), status=202, location=f"{request.path}{job.pk}/", tag=False)

        return once(request, act)


class OneReplay(ApiView):
    """One replay."""

    operations = {
        "get": Operation(
            id="getReplay",
            tag="policy",
            summary="See how far a replay is, or what it found",
            permissions=("policies.replay_policy",),
            query=(FIELDS,),
            response=forms.Replay,
            problems=(404,),
        ),
        "delete": Operation(
            id="cancelReplay",
            tag="policy",
            summary="Cancel a replay, or forget one that is over",
            permissions=("policies.replay_policy",),
            status=204,
            problems=(404,),
        ),
    }

    def get(self, request: Request, job_id: UUID) -> Response:
        """Return it."""
        return self.one(_replay(jobs.settle(_find_job(job_id))), tag=False)

    def delete(self, request: Request, job_id: UUID) -> Response:
        """Whoever works on it sees that it is gone, and stops."""
        _find_job(job_id).delete()
        return Response(status=204)


def _find_job(job_id: UUID) -> ReplayJob:
    job = ReplayJob.objects.filter(pk=job_id).first()
    if job is None:
        raise Problem("not_found", "There is no such replay.")
    return job
