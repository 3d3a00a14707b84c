"""Replays: a draft tried on past events, as a job that says how far it is."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from audit.export.formats import moment
from audit.services.acts import record_act
from core.api.fields import read
from core.api.problems import Problem, invalid, wrong
from core.api.views import FIELDS, LIMIT, ApiView, Operation, actor_of
from core.jobs import alive, settle
from policies.api.idempotency import once
from policies.api.policy import YAML, PolicyView, read_document
from policies.api.serializers import replays as forms
from policies.models import ReplayJob
from policies.services import policy as policy_acts
from policies.simulate import jobs

__all__ = ["OneReplay", "Replays"]

MOST_GROUPS = 1_000
PAYLOADS = "audit.view_payload"


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
        "payloads": job.payloads,
        "report": {**job.report, "groups": job.report["groups"][:MOST_GROUPS]} if job.report else None,
    }


def _may_see(user: Any, job: ReplayJob) -> bool:
    """Tell whether somebody may have a report: one that asked about arguments tells of them."""
    return not job.payloads or bool(user.has_perm(PAYLOADS))


class Replays(PolicyView):
    """Replays, each a job."""

    operations = {
        "get": Operation(
            id="listReplays",
            tag="policy",
            summary="List replays, the newest first",
            permissions=("policies.replay_policy",),
            query=(LIMIT, FIELDS),
            response=forms.ReplaySerializer,
            page=True,
        ),
        "post": Operation(
            id="startReplay",
            tag="policy",
            summary="Decide past events again under a draft",
            description=f"Answers at once; `Location` tells how far it is and, in the end, what would change. At most {jobs.MOST} "
            f"run at once. Without the permission `{PAYLOADS}` no condition on arguments is asked: what hangs on them is undecidable.",
            permissions=("policies.replay_policy",),
            request=forms.ReplayRequestSerializer,
            request_types=YAML,
            response=forms.ReplaySerializer,
            status=202,
            problems=(409,),
            creates=True,
        ),
    }

    def get(self, request: Request) -> Response:
        """Return the newest."""
        found = ReplayJob.objects.defer("document")
        if not request.user.has_perm(PAYLOADS):
            found = found.filter(payloads=False)
        return self.many([_replay(settle(job)) for job in found[: self.query["limit"]]])

    def post(self, request: Request) -> Response:
        asked = read(forms.ReplayRequestSerializer, request.data)
        read_document(asked["document"])
        until = asked.get("until") or timezone.now()
        since = asked.get("since") or until - timedelta(days=7)
        if since >= until:
            raise invalid(wrong("since", "It is before until."))

        def act() -> Response:
            policy_acts.lock_policy()  # so that two that come at once are counted one after the other
            if alive(ReplayJob) >= jobs.MOST:
                raise Problem("conflict", f"{jobs.MOST} replays are running; wait for one to end, or cancel it.")
            actor = actor_of(request)
            payloads = bool(request.user.has_perm(PAYLOADS))
            job = ReplayJob.objects.create(
                created_by=actor.name[:150], document=asked["document"], since=since, until=until, payloads=payloads
            )
            about = {"since": moment(since), "until": moment(until), "payloads": payloads}
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
            response=forms.ReplaySerializer,
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
        return self.one(_replay(settle(_find_job(job_id, request.user))), tag=False)

    def delete(self, request: Request, job_id: UUID) -> Response:
        """Whoever works on it sees that it is gone, and stops."""
        _find_job(job_id, request.user).delete()
        return Response(status=204)


def _find_job(job_id: UUID, user: Any) -> ReplayJob:
    job = ReplayJob.objects.filter(pk=job_id).first()
    if job is None:
        raise Problem("not_found", "There is no such replay.")
    if not _may_see(user, job):
        words = f"This replay looked at arguments: it needs the permission {PAYLOADS}."
        raise Problem("permission_denied", words, permission=PAYLOADS)
    return job
