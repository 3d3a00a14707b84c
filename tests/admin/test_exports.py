"""Large exports: a file made in the background, for its requester only, bounded in its life, and cancelled cleanly."""

from __future__ import annotations

import json
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings
from django.test import Client

from audit.export import jobs as export_jobs
from audit.models import ExportJob
from core import jobs
from core.ids import uuid7
from tests.admin.conftest import acts

pytestmark = pytest.mark.django_db
EXPORT = "/admin/audit/auditevent/export/"


def at(minutes: int) -> dict[str, object]:
    us = int((datetime.now(UTC) - timedelta(minutes=minutes)).timestamp() * 1e6)
    return {"id": uuid7(us), "ts": us}


class _Quiet:
    """Stands in for the thread that tells how far a job is: inside a test's transaction it would see nothing."""

    def __init__(self) -> None:
        self.gone = threading.Event()

    def __enter__(self) -> threading.Event:
        return self.gone

    def __exit__(self, *about: object) -> None:
        return None


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> _Quiet:
    one = _Quiet()
    monkeypatch.setattr(jobs, "beating", lambda *_: one)
    return one


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[ExportJob]:
    """Take every export for large; collect what would be started in a process of its own."""
    found: list[ExportJob] = []
    monkeypatch.setattr(export_jobs, "LARGE", 1)
    monkeypatch.setattr(jobs, "start", lambda command, job: found.append(job))
    return found


@pytest.fixture
def ask(django_capture_on_commit_callbacks: Any) -> Callable[..., str]:
    """Ask for an export as somebody would, and return the address of its page."""

    def post(client: Client, **fields: Any) -> str:
        with django_capture_on_commit_callbacks(execute=True):
            answer = client.post(f"{EXPORT}file/", {"format": "ndjson", **fields})
        assert answer.status_code == 302
        return str(answer["Location"])

    return post


def body(answer: Any) -> bytes:
    return b"".join(answer.streaming_content)


def test_a_large_export_becomes_a_file_that_its_requester_fetches(event, as_duty, ask, started, quiet):
    made = [event(**at(3000 - 40 * n), outcome="denied", reason="no_rule") for n in range(60)]
    event(**at(5))
    client = as_duty("auditor", username="ann")
    form = client.get(f"{EXPORT}?outcome=denied").content.decode()
    assert "Make the file" in form
    page = ask(client, outcome="denied")
    waiting = client.get(page).content.decode()
    assert "is being made" in waiting
    assert '<noscript><meta http-equiv="refresh"' in waiting  # how it goes on without scripts
    assert client.get(f"{page}file/")["Location"] == page  # nothing to fetch yet
    export_jobs.run(started[0].pk)
    ready = client.get(page).content.decode()
    assert "Your file is ready" in ready
    assert "refresh" not in ready
    path = export_jobs.path_of(started[0].pk)
    assert path.is_relative_to(settings.SENTINEL.var)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    answer = client.get(f"{page}file/")
    assert "no-store" in answer["Cache-Control"]
    assert "attachment" in answer["Content-Disposition"]
    data = body(answer)
    assert int(answer["Content-Length"]) == len(data)
    assert [json.loads(line)["id"] for line in data.splitlines()] == [str(one.id) for one in made]
    begun, ended, fetched = (acts(f"admin.events.{name}") for name in ("exported", "export.ended", "export.fetched"))
    assert begun[0]["details"]["filter"] == ended[0]["details"]["filter"] == {"outcome": ["denied"]}
    assert (ended[0]["details"]["count"], ended[0]["details"]["complete"]) == (60, True)
    assert ended[0]["key_name"] == fetched[0]["key_name"] == "ann"
    assert ended[0]["details"]["bytes"] == fetched[0]["details"]["bytes"] == len(data)


@pytest.mark.parametrize("fmt", ["csv", "ocsf"])
def test_other_formats_are_whole_too(fmt, event, as_duty, ask, started, quiet):
    for n in range(5):
        event(**at(n * 100 + 1))
    client = as_duty("auditor")
    page = ask(client, format=fmt)
    export_jobs.run(started[0].pk)
    lines = body(client.get(f"{page}file/")).splitlines()
    assert len(lines) == (6 if fmt == "csv" else 5)  # one line of names, however many slices


def test_nobody_else_may_look_fetch_or_cancel(event, as_duty, ask, started, quiet):
    event()
    owner = as_duty("auditor", username="ann")
    page = ask(owner)
    export_jobs.run(started[0].pk)
    others = [
        as_duty("auditor", username="bob"),
        as_duty("viewer", username="vic"),
        as_duty(username="sue", is_superuser=True),
    ]
    for other in others:
        assert other.get(page).status_code == 403
        assert other.get(f"{page}file/").status_code == 403
        assert other.post(f"{page}cancel/").status_code == 403
    # The duty is asked at each step: who lost it has lost the file as well.
    from sentinel.models import User

    User.objects.get(username="ann").groups.clear()
    assert owner.get(f"{page}file/").status_code == 403
    assert export_jobs.path_of(started[0].pk).exists()


def test_cancelling_while_it_is_made_leaves_no_file(event, as_duty, ask, started, quiet):
    for n in range(30):
        event(**at(n * 50 + 1))
    client = as_duty("auditor")
    page = ask(client)
    job = started[0]
    original = export_jobs._Work._rows

    def slow(self: Any, gone: threading.Event) -> Iterator[Any]:
        for number, row in enumerate(original(self, gone)):
            if number == 10:
                assert client.post(f"{page}cancel/").status_code == 302
                gone.set()
            yield row

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_jobs._Work, "_rows", slow)
        export_jobs.run(job.pk)
    assert list((settings.SENTINEL.var / "exports").glob(f"{job.pk}*")) == []
    assert not ExportJob.objects.filter(pk=job.pk).exists()
    assert client.get(page).status_code == 404
    ended = acts("admin.events.export.ended")
    assert ended[0]["details"]["complete"] is False


def test_a_full_disk_ends_the_export_before_it_ends_the_journal(event, as_duty, ask, started, quiet, monkeypatch):
    for n in range(3):
        event(**at(n + 1))
    client = as_duty("auditor")
    page = ask(client)
    monkeypatch.setattr(export_jobs, "LOOK_BYTES", 1)
    monkeypatch.setattr(export_jobs.shutil, "disk_usage", lambda _: SimpleNamespace(total=10 << 40, free=1 << 20))
    export_jobs.run(started[0].pk)
    assert "not enough room" in client.get(page).content.decode()
    assert list((settings.SENTINEL.var / "exports").glob(f"{started[0].pk}*")) == []


def test_few_run_at_once_and_a_dead_one_is_said_to_be_dead(event, as_duty, ask, started):
    event()
    client = as_duty("auditor")
    pages = [ask(client) for _ in range(export_jobs.MOST)]
    answer = client.post(f"{EXPORT}file/", {"format": "csv"}, follow=True)
    assert "exports are being made" in answer.content.decode()
    assert len(started) == export_jobs.MOST
    ExportJob.objects.update(beat_at=datetime.now(UTC) - 2 * jobs.GONE)
    assert "start it again" in client.get(pages[0]).content.decode()
    ask(client)  # the dead take no place
    export_jobs.run(started[1].pk)  # nobody works on what is over or taken
    export_jobs.run(started[1].pk)


def test_who_asks_may_have_the_stream_all_the_same(event, as_duty, started):
    event()
    answer = as_duty("auditor").post(f"{EXPORT}file/", {"format": "ndjson", "how": "stream"})
    assert len(body(answer).splitlines()) == 1
    assert started == []


def test_files_are_deleted_by_age(tmp_path: Path):
    folder = tmp_path / "exports"
    folder.mkdir()
    now = time.time()
    for name, age in (("new", 60), ("old", 25 * 3600), ("live.part", 60), ("left.part", 2 * 3600)):
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (now - age, now - age))
    assert export_jobs.sweep(tmp_path, now) == 2
    assert sorted(path.name for path in folder.iterdir()) == ["live.part", "new"]


def test_after_its_life_a_file_is_given_to_nobody(event, as_duty, ask, started, quiet):
    event()
    client = as_duty("auditor")
    page = ask(client)
    export_jobs.run(started[0].pk)
    ExportJob.objects.update(finished_at=datetime.now(UTC) - timedelta(hours=25))
    assert client.get(f"{page}file/").status_code == 302
    assert "The file is gone" in client.get(page).content.decode()


def test_slices_cover_the_whole_time_once():
    since = datetime(2026, 1, 1, tzinfo=UTC)
    for span in (timedelta(0), timedelta(seconds=3), timedelta(hours=5), timedelta(days=400)):
        found = list(export_jobs._slices(since, since + span))
        assert [start for start, _ in found[1:]] == [end for _, end in found[:-1]]
        if found:
            assert (found[0][0], found[-1][1]) == (since, since + span)


def test_the_beat_tells_how_far_it_is_and_hears_of_the_end():
    told: list[dict[str, Any]] = []

    class Rows:
        """The table, as a thread outside of this test's transaction would see it: the row goes after three looks."""

        def filter(self, **_: Any) -> Rows:
            return self

        def update(self, **fields: Any) -> bool:
            told.append(fields)
            return len(told) < 3

    kind: Any = SimpleNamespace(_default_manager=Rows())
    with jobs.beating(kind, uuid7(), lambda: {"events": 7}, 0.01) as gone:
        assert gone.wait(10)
    assert [fields["events"] for fields in told] == [7, 7, 7]
    assert all("beat_at" in fields for fields in told)


def test_the_address_of_the_page_names_no_secret(event, as_duty, ask):
    event()
    assert re.fullmatch(r"/admin/audit/auditevent/export/[0-9a-f-]{36}/", ask(as_duty("auditor")))
