"""How the journal is written down: frames that can be told apart from torn, damaged and empty space (pure).

A frame is a header of 32 bytes and a payload of JSON:

    magic   4  0xFF "MSJ"; 0xFF occurs in no UTF-8 text, so no payload can contain a header
    length  4  of the payload, in bytes
    number  8  of the frame, dense within a writer's boot
    seq     8  the last event number given out, up to and including this frame
    kind    1  see Kind; the top bit says that this frame gives out `seq`
    (pad)   3
    crc     4  CRC-32 of the header from `length` to the padding, and of the payload

How far a writer has synced stands in its mark: magic, boot, segment, offset, frame, seq, time in microseconds, CRC-32.

All little-endian. Space that was never written is zero.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

__all__ = ["HEADER", "MAGIC", "MARK_SIZE", "MAX_PAYLOAD", "Damage", "Frame", "Kind", "Mark", "encode", "scan"]

MAGIC = b"\xffMSJ"
HEADER = struct.Struct("<4sIQQB3xI")
HEADER_SIZE = HEADER.size
CHECKED = struct.Struct("<IQQB3x")
MAX_PAYLOAD = 8 * 1024 * 1024
OPENS = 0x80
MARK_MAGIC = b"MARK"
MARK = struct.Struct("<4sQQQQQQ")
MARK_CRC = struct.Struct("<I")
MARK_SIZE = MARK.size + MARK_CRC.size


class Kind(IntEnum):
    """What a frame says."""

    SEGMENT = 0  # the head of a file; its number is that of the first frame that follows
    BOOT = 1  # the first frame of a boot: who writes, and where the boot before ended
    EVENT = 2  # a complete event
    INTENT = 3  # a call is about to go upstream
    OUTCOME = 4  # how that call ended
    ANSWERED = 5  # a stream's answer was released; its end follows
    COUNTED = 6  # refusals of one kind counted so far; the last of them has closed=true
    CLOSE = 7  # the writer ended in good order
    RESUMABLE = 8  # a call's answer may come on another stream; how it ends when none does
    RESUMED = 9  # another stream took up such a call, and perhaps brought its answer


class Frame(NamedTuple):
    """One frame that was read and found whole; [offset, end) is where in its file."""

    number: int
    seq: int
    kind: int
    opens: bool
    payload: bytes
    offset: int
    end: int


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that are no frame: [offset, end) of a file. `tail` when nothing whole follows them."""

    offset: int
    end: int
    data: bytes
    tail: bool


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a writer has synced."""

    boot: int
    index: int  # of the segment
    offset: int
    frame: int
    seq: int
    ts: int

    def encode(self) -> bytes:
        data = MARK.pack(MARK_MAGIC, self.boot, self.index, self.offset, self.frame, self.seq, self.ts)
        return data + MARK_CRC.pack(zlib.crc32(data))

    @classmethod
    def decode(cls, data: bytes) -> Mark | None:
        """Read it; None where it is none, or not whole."""
        if len(data) != MARK_SIZE or MARK_CRC.pack(zlib.crc32(data[: MARK.size])) != data[MARK.size :]:
            return None
        magic, *values = MARK.unpack_from(data)
        return cls(*values) if magic == MARK_MAGIC else None


def encode(kind: int, number: int, seq: int, payload: bytes, opens: bool = False) -> bytes:
    """Make the header of a frame; the payload is written after it."""
    if opens:
        kind |= OPENS
    crc = zlib.crc32(payload, zlib.crc32(CHECKED.pack(len(payload), number, seq, kind)))
    return HEADER.pack(MAGIC, len(payload), number, seq, kind, crc)


def read_at(data: bytes, at: int, base: int = 0) -> tuple[Frame | None, bool]:
    """Read the frame that begins at a place: the frame, or None and whether more bytes could complete it.

    `base` is where in its file `data` begins.
    """
    begin = at + HEADER_SIZE
    if len(data) < begin:
        rest = data[at : at + 4]
        return None, MAGIC.startswith(rest) or not any(data[at:])
    magic, length, number, seq, kind, crc = HEADER.unpack_from(data, at)
    if magic != MAGIC or length > MAX_PAYLOAD:
        return None, False
    end = begin + length
    if end > len(data):
        return None, True
    payload = data[begin:end]
    if zlib.crc32(payload, zlib.crc32(data[at + 4 : begin - 4])) != crc:
        return None, False
    return Frame(number, seq, kind & ~OPENS, kind >= OPENS, payload, base + at, base + end), False


def scan(data: bytes, base: int = 0, final: bool = True) -> Iterator[Frame | Damage]:
    """Read frames one after another, offsets counted from `base`; resume after damage at the next whole frame.

    With `final` false, `data` is a part of the file: what is incomplete at its end is left for the next reading.
    Trailing zeros are space not used yet and give nothing.
    """
    at = 0
    size = len(data)
    while at < size:
        frame, more = read_at(data, at, base)
        if frame is not None:
            yield frame
            at = frame.end - base
            continue
        if more and not final:
            return
        following = next_frame(data, at + 1)
        if following is not None:
            yield Damage(base + at, base + following, data[at:following], False)
            at = following
            continue
        rest = data[at:].rstrip(b"\0")
        if rest:
            if not final:
                # Where the damage ends is not known yet: the caller comes back with a longer part.
                return
            yield Damage(base + at, base + at + len(rest), rest, True)
        return


def next_frame(data: bytes, at: int) -> int | None:
    """Find the next place at which a whole frame begins."""
    while (at := data.find(MAGIC, at)) >= 0:
        if read_at(data, at)[0] is not None:
            return at
        at += 1
    return None
