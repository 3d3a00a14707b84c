"""Replays run beside the gateway, in a process of their own: deciding a million events must cost no agent a millisecond."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import connection
from django.utils import timezone

from policies.models import ReplayJob
from policies.replay import replay

__all__ = ["GONE", "MOST", "alive", "run", "settle", "start"]

log = logging.getLogger("sentinel.policies")

MOST = 2  # at once
GONE = timedelta(seconds=60)  # silence after which whoever worked on it has ended
BEAT = 5.0
_children: list[subprocess.Popen[bytes]] = []


class Cancelled(Exception):
    """Somebody wants no more of it."""


def start(job: ReplayJob) -> None:
    """Have a job worked on by a process that ends with this one."""
    _children[:] = [child for child in _children if child.poll() is None]
    command = [
        sys.executable,
        str(Path(settings.BASE_DIR) / "manage.py"),
        "replayjob",
        str(job.pk),
        "--parent",
        str(os.getpid()),
    ]
    _children.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=settings.BASE_DIR))  # noqa: S603 - our own command


def alive() -> int:
    """Count the jobs that are under way."""
    return ReplayJob.objects.filter(state__in=("waiting", "running"), beat_at__gt=timezone.now() - GONE).count()


def settle(job: ReplayJob) -> ReplayJob:
    """Say of a job whose process has ended that it failed."""
    if job.state in ("waiting", "running") and job.beat_at < timezone.now() - GONE:
        _end(job.pk, "failed", error="The process that worked on it ended; start it again.")
        job.refresh_from_db()
    return job


def run(job_id: UUID, *, beat: bool = False) -> None:
    """Work on a job until it is over."""
    if not ReplayJob.objects.filter(pk=job_id, state="waiting").update(state="running", beat_at=timezone.now()):
        return
    job = ReplayJob.objects.get(pk=job_id)
    over = threading.Event()
    if beat:
        threading.Thread(target=_beat, args=(job_id, over), daemon=True).start()

    def progress(done: int, of: int) -> None:
        now = timezone.now()
        if not ReplayJob.objects.filter(pk=job_id, state="running").update(done=done, of=of, beat_at=now):
            raise Cancelled

    try:
        report = replay(job.document, job.since, job.until, progress).as_dict()
    except Cancelled:
        return
    except (ValueError, ValidationError) as error:
        _end(job_id, "failed", error=" ".join(error.messages) if isinstance(error, ValidationError) else str(error))
    except Exception:
        log.exception("a replay failed")
        _end(job_id, "failed", error="Something went wrong; the log of the gateway says what.")
    else:
        _end(job_id, "done", report=report)
    finally:
        over.set()


def _end(job_id: UUID, state: str, **more: Any) -> None:
    ReplayJob.objects.filter(pk=job_id, state__in=("waiting", "running")).update(
        state=state, finished_at=timezone.now(), beat_at=timezone.now(), **more
    )


def _beat(job_id: UUID, over: threading.Event) -> None:
    try:
        while not over.wait(BEAT):
            ReplayJob.objects.filter(pk=job_id, state="running").update(beat_at=timezone.now())
    finally:
        connection.close()
