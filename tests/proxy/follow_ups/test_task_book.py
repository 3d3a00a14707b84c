"""What is written down of tasks: little, for its maker alone, and nothing that keeps a worker from starting."""

from __future__ import annotations

import os
import time

import pytest

from proxy.follow_ups.task_book import MOST, MOST_BYTES, Made, TaskBook

HOUR = 3600.0


def sizes(folder):
    return [place.stat().st_size for place in folder.rglob("*") if place.is_file()]


@pytest.mark.parametrize(
    "made",
    [
        Made("x" * 1_000_000),
        Made("\0" * (MOST_BYTES // 4)),
        Made("run_many", tuple(f"tool-{number}-{'x' * 100}" for number in range(1000))),
    ],
    ids=["a name", "a name that grows as it is written", "many names"],
)
def test_what_is_large_is_not_written_down(tmp_path, made):
    book = TaskBook(tmp_path)
    book.keep("key", "task 1", Made("small"), HOUR)
    with pytest.raises(OSError, match="bytes long"):
        book.keep("key", "task 1", made, HOUR)
    assert book.made("key", "task 1") is None
    with pytest.raises(OSError, match="bytes long"):
        book.keep("another", "task 1", made, HOUR)
    assert sum(sizes(tmp_path)) == 0


def test_what_servers_have_is(tmp_path):
    book = TaskBook(tmp_path)
    made = Made("run_many", tuple(f"customers_list_orders_{number}" for number in range(300)))
    book.keep("key", "task 1", made, HOUR)
    assert book.made("key", "task 1") == made


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "\0", "\ud800", "", ".", "x" * 1_000_000, "~", "task\n"])
def test_an_id_is_no_path(tmp_path, name):
    book = TaskBook(tmp_path / "tasks")
    book.keep("key", name, Made("small"), HOUR)
    assert book.made("key", name) == Made("small")
    assert book.made("other", name) is None
    assert [place.name for place in tmp_path.iterdir()] == ["tasks"]
    (place,) = [place for place in tmp_path.rglob("*") if place.is_file()]
    assert place.parent == tmp_path / "tasks" / "key" and place.stat().st_mode & 0o777 == 0o600


def test_ever_new_ids_are_so_many_files(tmp_path):
    book = TaskBook(tmp_path)
    for number in range(MOST + 50):
        book.keep("key", f"task {number}", Made("small"), HOUR + number)
    assert len(sizes(tmp_path)) == MOST
    assert book.made("key", f"task {MOST + 49}") is not None and book.made("key", "task 0") is None


def test_what_lies_there_by_accident_stops_no_sweep(tmp_path):
    book = TaskBook(tmp_path)
    book.keep("key", "task 1", Made("small"), HOUR)
    book.keep("key", "task 2", Made("small"), -1.0)
    (tmp_path / ".DS_Store").write_bytes(b"")
    (tmp_path / "key" / "folder").mkdir()
    (tmp_path / "away").symlink_to("/nowhere")
    os.utime(tmp_path / "key" / "folder", (0, time.time() - 9))
    book.sweep()
    assert book.made("key", "task 1") == Made("small") and book.made("key", "task 2") is None
    assert len([place for place in (tmp_path / "key").iterdir() if place.is_file()]) == 1
