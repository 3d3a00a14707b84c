"""A journal that was cut, flipped, or lost files: what is whole is read, what is not is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from audit.journal.frames import Frame, Kind
from audit.journal.reader import BootReader, Hole, read_mark, segments_of
from audit.journal.writer import Journal
from tests.audit.journal.test_writer import numbers, read_all

Opener = Callable[..., Journal]


@pytest.fixture
def dead(open_journal: Opener) -> tuple[Path, int, Path]:
    """The journal of a writer that died: a boot record and six events; no last word."""
    journal = open_journal()
    for number in range(1, 7):
        journal.append(Kind.EVENT, orjson.dumps({"n": number}), True).wait()
    directory = journal.directory
    copy = directory.parent.parent / "dead"
    copy.mkdir()
    for path in directory.iterdir():
        if path.suffix in (".seg", ".mark"):
            (copy / path.name).write_bytes(path.read_bytes())
    (file,) = segments_of(copy)[journal.boot]
    return copy, journal.boot, file.path


def frames_in(directory: Path, boot: int) -> list[Frame]:
    return [item for item in read_all(directory, boot) if isinstance(item, Frame)]


@pytest.mark.parametrize("marked", [True, False])
def test_cut_at_every_byte_of_the_last_two_frames(dead: tuple[Path, int, Path], marked: bool) -> None:
    directory, boot, path = dead
    whole = path.read_bytes()
    found = frames_in(directory, boot)
    assert [frame.number for frame in found] == list(range(1, 8))
    if not marked:
        (directory / f"{boot:016d}.mark").unlink()
    for cut in range(found[-2].offset, found[-1].end):
        path.write_bytes(whole[:cut])
        items = read_all(directory, boot)
        left = [frame.number for frame in found if frame.end <= cut]
        assert numbers(items) == left
        holes = [item for item in items if isinstance(item, Hole)]
        if marked:
            # The mark says that they were safe once: what is gone is named, to the event.
            (hole,) = holes
            assert (hole.first, hole.last, hole.torn) == (left[-1] + 1, 7, False)
            assert (hole.first_seq, hole.last_seq) == (left[-1], 6)
        elif cut in (found[-2].offset, found[-1].offset):
            assert not holes
        else:
            assert [hole.torn for hole in holes] == [True]


@pytest.mark.parametrize("marked", [True, False])
def test_a_bit_flipped_anywhere_in_the_last_two_frames(dead: tuple[Path, int, Path], marked: bool) -> None:
    directory, boot, path = dead
    whole = path.read_bytes()
    found = frames_in(directory, boot)
    if not marked:
        (directory / f"{boot:016d}.mark").unlink()
    for place in range(found[-2].offset, found[-1].end):
        broken = bytearray(whole)
        broken[place] ^= 1 << (place % 8)
        path.write_bytes(broken)
        items = read_all(directory, boot)
        hit = 6 if place < found[-1].offset else 7
        assert numbers(items) == [n for n in range(1, 8) if n != hit]
        holes = [item for item in items if isinstance(item, Hole)]
        assert len(holes) == 1, "told, whether or not a mark survived"
        if hit == 6 or marked:
            assert (holes[0].first, holes[0].last, holes[0].torn) == (hit, hit, False)
            assert (holes[0].first_seq, holes[0].last_seq) == (hit - 1, hit - 1)
        assert holes[0].data


def test_frames_after_damage_are_read(dead: tuple[Path, int, Path]) -> None:
    directory, boot, path = dead
    found = frames_in(directory, boot)
    broken = bytearray(path.read_bytes())
    broken[found[2].offset : found[4].offset + 5] = bytes(found[4].offset + 5 - found[2].offset)
    path.write_bytes(broken)
    items = read_all(directory, boot)
    assert numbers(items) == [1, 2, 6, 7]
    (hole,) = [item for item in items if isinstance(item, Hole)]
    assert (hole.first, hole.last, hole.first_seq, hole.last_seq, hole.torn) == (3, 5, 2, 4, False)


def test_a_missing_file_is_a_hole(open_journal: Opener) -> None:
    journal = open_journal(segment_bytes=128 * 1024)
    while len(segments_of(journal.directory).get(journal.boot, [])) < 4:
        journal.append(Kind.EVENT, b"{}" + b" " * 4000, True).wait()
    files = segments_of(journal.directory)[journal.boot]
    first, following = files[1].first, files[2].first
    files[1].path.unlink()
    items = read_all(journal.directory, journal.boot, live=True)
    (hole,) = [item for item in items if isinstance(item, Hole)]
    assert (hole.first, hole.last) == (first, following - 1)
    assert (hole.first_seq, hole.last_seq) == (first - 1, following - 2)
    assert numbers(items)[-1] == journal.synced


def test_the_mark_is_read_whole_or_not_at_all(dead: tuple[Path, int, Path]) -> None:
    directory, boot, _ = dead
    path = directory / f"{boot:016d}.mark"
    whole = path.read_bytes()
    for place in range(len(whole)):
        broken = bytearray(whole)
        broken[place] ^= 0x10
        path.write_bytes(broken)
        assert read_mark(directory, boot) is None


def test_a_reader_that_begins_late_passes_over_what_is_stored(dead: tuple[Path, int, Path]) -> None:
    """An empty answer means that nothing is left, also when more than one reading's worth lies before the place."""
    directory, boot, _ = dead
    for after in range(1, 7):
        found = BootReader(directory, boot).read(after, after - 1, read_mark(directory, boot), False, 64)
        assert isinstance(found[0], Frame) and found[0].number == after + 1
