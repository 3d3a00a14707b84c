"""Verifications that somebody asked for in the admin: each a row that any worker can show, with what was found when it is over.

A small log is verified at once; a large one by a process of its own, which says how far it is.
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction

from audit.drain.verify import VerificationReport, verify
from audit.models import AuditEvent, VerifyJob
from audit.services.acts import record_act
from core import jobs
from core.access.actors import Actor
from core.ids import ts_of

__all__ = ["LARGE", "MOST_FINDINGS", "ask", "latest", "run"]

log = logging.getLogger("sentinel.audit")

LARGE = 200_000  # events; what is smaller is walked within a second or two
MOST_FINDINGS = 200
KEPT = 20  # verifications that are remembered
SAY_SECONDS = 1.0


def ask(who: Actor) -> VerifyJob:
    """Verify the log, or have it verified; one that is under way serves for everybody who asks meanwhile."""
    if jobs.alive(VerifyJob):
        return VerifyJob.objects.filter(state__in=("waiting", "running")).latest("created_at")
    job = VerifyJob.objects.create(created_by=who.name[:150], actor=who.kept())
    for old in VerifyJob.objects.order_by("-created_at").values_list("pk", flat=True)[KEPT:]:
        VerifyJob.objects.filter(pk=old).delete()
    if AuditEvent.objects.about_count() > LARGE:
        transaction.on_commit(lambda: jobs.start("verifyjob", job))
    else:
        run(job.pk)
        job.refresh_from_db()
    return job


def latest() -> tuple[VerifyJob | None, VerifyJob | None]:
    """Return the verification that is under way, and the last one that is over."""
    newest = VerifyJob.objects.order_by("-created_at")
    running = newest.filter(state__in=("waiting", "running")).first()
    running = jobs.settle(running) if running is not None else None
    over = newest.filter(state__in=("done", "failed")).first()
    return (running if running is not None and running.under_way else None), over


def run(job_id: UUID) -> None:
    """Work on a verification until it is over; an event says what was found."""
    job = jobs.claim(VerifyJob, job_id)
    if job is None:
        return
    at: dict[str, Any] = {}
    began = time.perf_counter()

    def reached(done: int, of: int, events: int) -> None:
        at.update(done=done, of=of, events=events)

    found: dict[str, Any] = {}
    try:
        connection.ensure_connection()
        raw: Any = connection.connection
        first = AuditEvent.objects.order_by("id").values_list("id", flat=True).first()
        with jobs.beating(VerifyJob, job_id, lambda: dict(at), SAY_SECONDS):
            report = verify(raw, settings.SENTINEL.var / "journal", settings.SENTINEL.instance, reached)
        found = {**at, "report": kept(report), "events": report.events, "error": ""}
        found["since"] = datetime.fromtimestamp(ts_of(first) / 1e6, UTC) if first else None
    except Exception:
        # Whatever it was, whoever waits for the answer must hear that there will be none.
        log.exception("a verification failed")
        found = {"error": "Something went wrong; the log of the gateway says what."}
    finally:
        found.setdefault("error", "The process that worked on it ended; start it again.")
        seconds = time.perf_counter() - began
        jobs.end(VerifyJob, job_id, "failed" if found["error"] else "done", seconds=seconds, **found)
        about = _about(found)
        record_act(
            method="admin.log.verified", actor=Actor(**job.actor), details={**about, "verification": str(job_id)}
        )


def kept(report: VerificationReport) -> dict[str, Any]:
    """Return a report as it is kept: its numbers whole, of its findings the gravest."""
    findings = sorted(report.findings, key=lambda finding: finding.explained)
    lost = sum(not finding.explained for finding in findings)
    counts = {"ok": report.ok, "writers": report.writers, "boots": report.boots, "holes": len(findings), "lost": lost}
    return {**counts, "notes": report.notes, "findings": [asdict(finding) for finding in findings[:MOST_FINDINGS]]}


def _about(found: dict[str, Any]) -> dict[str, Any]:
    if found["error"]:
        return {"ok": None, "error": found["error"]}
    report = found["report"]
    return {"ok": report["ok"], "events": found["events"], "holes": report["holes"], "lost": report["lost"]}
