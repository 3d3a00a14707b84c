"""Replays run beside the gateway, in a process of their own: deciding a million events must cost no agent a millisecond."""

from __future__ import annotations

import logging
from functools import partial
from uuid import UUID

from django.core.exceptions import ValidationError

from core import jobs
from policies.models import ReplayJob
from policies.simulate.recorded import replay

__all__ = ["MOST", "run", "start"]

log = logging.getLogger("sentinel.policies")

MOST = 2  # at once


def start(job: ReplayJob) -> None:
    """Have a replay worked on by a process that ends with this one."""
    jobs.start("replayjob", job)


def run(job_id: UUID) -> None:
    """Work on a replay until it is over."""
    job = jobs.claim(ReplayJob, job_id)
    if job is None:
        return

    decide = replay if job.payloads else partial(replay, payloads=False)

    def progress(done: int, of: int) -> None:
        jobs.step(ReplayJob, job_id, done=done, of=of)

    try:
        with jobs.beating(ReplayJob, job_id):
            report = decide(job.document, job.since, job.until, progress).as_dict()
    except jobs.JobCancelled:
        return
    except (ValueError, ValidationError) as error:
        words = " ".join(error.messages) if isinstance(error, ValidationError) else str(error)
        jobs.end(ReplayJob, job_id, "failed", error=words)
    except Exception:
        # Whatever it was, whoever waits for the report must hear that there will be none.
        log.exception("a replay failed")
        jobs.end(ReplayJob, job_id, "failed", error="Something went wrong; the log of the gateway says what.")
    else:
        jobs.end(ReplayJob, job_id, "done", report=report)
