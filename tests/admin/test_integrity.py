"""Verifications stay: what the last one found stands on the page for everybody, after a reload and for any worker."""

from __future__ import annotations

import re
from contextlib import nullcontext
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.utils import timezone

from audit.drain.verify import verify
from audit.models import VerifyJob, WriterPosition
from audit.services import verification
from core import jobs
from core.access.actors import Actor
from tests.admin.conftest import acts

pytestmark = pytest.mark.django_db
PLACE = "/admin/audit/auditevent/integrity/"


class _Inside:
    """The test's own connection: inside its transaction there is one snapshot already, and another cannot be had."""

    def __init__(self, raw):
        self.raw = raw

    def transaction(self):
        return self.raw.transaction()

    def execute(self, query, *args):
        return self.raw.execute("SELECT 1" if "ISOLATION LEVEL" in query else query, *args)


@pytest.fixture(autouse=True)
def _inside(monkeypatch):
    monkeypatch.setattr(verification, "verify", lambda raw, *rest: verify(_Inside(raw), *rest))
    monkeypatch.setattr(jobs, "beating", lambda *_: nullcontext())


@pytest.fixture
def auditor(as_duty):
    return as_duty("auditor", username="vera")


def numbered(event, *numbers: int, last: int) -> None:
    for number in numbers:
        event(writer="w1", boot=7, seq=number)
    WriterPosition.objects.create(
        writer="w1", boot=7, seq=last, frame=last, reported_seq=last, closed_at=timezone.now()
    )


def test_the_result_stays(auditor, as_duty, event):
    assert b"Not verified yet" in auditor.get(PLACE).content
    numbered(event, 1, 2, 4, last=4)
    assert auditor.post(PLACE).status_code == 302
    for client in (auditor, as_duty("auditor", username="other"), auditor):
        text = client.get(PLACE).content.decode()
        assert "Events are missing that nothing explains" in text and "by vera" in text and "Not verified" not in text
        assert re.search(r'<td class="num">3</td><td class="num">3</td>', text)
    (told,) = acts("admin.log.verified")
    assert told["key_name"] == "vera"
    about = told["details"]
    assert (about["ok"], about["events"], about["lost"]) == (False, 3, 1)


def test_a_large_log_is_walked_by_a_process_of_its_own_and_says_how_far_it_is(
    auditor, event, monkeypatch, django_capture_on_commit_callbacks
):
    numbered(event, 1, 2, last=2)
    started = []
    monkeypatch.setattr(verification, "LARGE", -1)
    monkeypatch.setattr(jobs, "start", lambda command, job: started.append((command, job.pk)))
    with django_capture_on_commit_callbacks(execute=True):
        auditor.post(PLACE)
        auditor.post(PLACE)  # pressed again: the one that is under way serves
    ((command, pk),) = started
    page = auditor.get(PLACE).content.decode()
    assert "data-follow" in page and "Starting" in page and "Started" in page and 'http-equiv="refresh"' in page
    VerifyJob.objects.update(state="running", done=1, of=4, events=1_500)
    page = auditor.get(PLACE).content.decode()
    assert "25 %" in page and "walked" in page
    VerifyJob.objects.update(state="waiting")
    call_command(command, str(pk))
    page = auditor.get(PLACE).content.decode()
    assert "Nothing is missing" in page and "data-follow" not in page
    job = VerifyJob.objects.get()
    assert job.state == "done" and job.done == job.of > 0 and job.since is not None


def test_one_whose_process_died_or_failed_says_so_and_another_can_be_made(auditor, event, monkeypatch):
    job = VerifyJob.objects.create(created_by="x", state="running", beat_at=timezone.now() - timedelta(minutes=5))
    page = auditor.get(PLACE).content.decode()
    assert "came to no result" in page and "process that worked on it ended" in page
    with monkeypatch.context() as broken:
        broken.setattr(verification, "verify", lambda *args: 1 / 0)
        auditor.post(PLACE)
    assert "came to no result" in auditor.get(PLACE).content.decode()
    assert acts("admin.log.verified")[-1]["details"]["ok"] is None
    auditor.post(PLACE)
    assert "Nothing is missing" in auditor.get(PLACE).content.decode()
    assert VerifyJob.objects.filter(pk=job.pk, state="failed").exists()


def test_only_the_last_ones_are_kept(event):
    for _ in range(verification.KEPT + 5):
        verification.ask(Actor(kind="user", name="vera", user_id=1))
    assert VerifyJob.objects.count() == verification.KEPT


@pytest.mark.parametrize("duty", ["viewer", "operator", "policy-manager"])
def test_whoever_may_not_verify_sees_no_result(duty, as_duty):
    client = as_duty(duty)
    assert client.get(PLACE).status_code == client.post(PLACE).status_code == 403
