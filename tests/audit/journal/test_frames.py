from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from audit.journal import frames
from audit.journal.frames import Damage, Frame, Kind


def written(payloads: list[bytes]) -> tuple[bytes, list[int]]:
    data, ends = b"", []
    for number, payload in enumerate(payloads, 1):
        data += frames.encode(Kind.EVENT, number, number, payload, True) + payload
        ends.append(len(data))
    return data, ends


PAYLOADS = st.lists(st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace")), min_size=1, max_size=6)


@given(PAYLOADS, st.integers(0, 300))
def test_what_was_written_is_read(payloads: list[bytes], zeros: int) -> None:
    data, _ = written(payloads)
    found = list(frames.scan(data + bytes(zeros)))
    assert [frame.payload for frame in found if isinstance(frame, Frame)] == payloads
    assert not [item for item in found if isinstance(item, Damage)]
    assert all(isinstance(frame, Frame) and frame.opens and frame.kind == Kind.EVENT for frame in found)


@settings(max_examples=60)
@given(PAYLOADS)
def test_cut_anywhere_gives_the_whole_frames_before(payloads: list[bytes]) -> None:
    data, ends = written(payloads)
    for cut in range(len(data)):
        found = list(frames.scan(data[:cut]))
        whole = sum(end <= cut for end in ends)
        assert [item.number for item in found if isinstance(item, Frame)] == list(range(1, whole + 1))
        damage = [item for item in found if isinstance(item, Damage)]
        at_border = cut == 0 or cut in ends
        assert bool(damage) != at_border and all(item.tail for item in damage)


@settings(max_examples=40)
@given(PAYLOADS.filter(lambda payloads: len(payloads) > 1), st.data())
def test_a_flipped_bit_costs_one_frame(payloads: list[bytes], data_: st.DataObject) -> None:
    data, ends = written(payloads)
    place = data_.draw(st.integers(0, ends[-1] - 1))
    bit = data_.draw(st.integers(0, 7))
    broken = bytearray(data)
    broken[place] ^= 1 << bit
    hit = next(number for number, end in enumerate(ends, 1) if place < end)
    found = list(frames.scan(bytes(broken)))
    assert [item.number for item in found if isinstance(item, Frame)] == [
        n for n in range(1, len(ends) + 1) if n != hit
    ]
    assert len([item for item in found if isinstance(item, Damage)]) == 1


@given(st.binary(max_size=400))
def test_garbage_is_never_a_frame(data: bytes) -> None:
    assert not [item for item in frames.scan(data) if isinstance(item, Frame)]


@given(PAYLOADS, st.integers(1, 80))
def test_reading_in_parts_gives_the_same(payloads: list[bytes], size: int) -> None:
    data, _ = written(payloads)
    read: list[int] = []
    offset = 0
    length = size
    while offset < len(data):
        part = data[offset : offset + length]
        found = [
            item for item in frames.scan(part, offset, final=offset + length >= len(data)) if isinstance(item, Frame)
        ]
        if not found:
            length *= 2
            continue
        read += [frame.number for frame in found]
        offset = found[-1].end
    assert read == list(range(1, len(payloads) + 1))
