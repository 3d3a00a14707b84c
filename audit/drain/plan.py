"""What a stretch of a journal means for the database (pure): rows to insert, calls to open and close, gaps to tell.

A Plan is made from frames in order, and from what the database knows of calls that were opened before them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from audit.journal.frames import Frame, Kind
from audit.journal.reader import Hole

__all__ = ["DrainPlan", "Open", "PlannedRow", "Spoiled", "finish", "parse", "plan", "wanted"]

Record = dict[str, Any]
Parsed = tuple[Frame | Hole, Record | Exception | None]
ABOUT_CALLS = frozenset((Kind.INTENT, Kind.OUTCOME, Kind.ANSWERED, Kind.COUNTED, Kind.RESUMABLE))


@dataclass(slots=True)
class PlannedRow:
    """One event to insert, and the frame that completed it."""

    record: Record
    frame: int
    seq: int


@dataclass(slots=True)
class Open:
    """A call or a counted event whose end has not come yet."""

    record: Record
    kind: str = "call"
    answered: bool = False
    wait: int = 0  # seconds for which its answer may come on another stream, once its own has ended
    until: int = 0  # its own stream has ended; that wait ends then (µs), unless another stream takes it up
    stored: bool = False  # the database has a row of it already
    changed: bool = False


@dataclass(slots=True)
class Spoiled:
    """Bytes that could not be understood, to be kept."""

    frame: int
    seq: int | None
    place: str
    data: bytes
    error: str


@dataclass(slots=True)
class DrainPlan:
    """What one transaction does."""

    frame: int
    seq: int
    rows: list[PlannedRow] = field(default_factory=list)
    open: dict[str, Open] = field(default_factory=dict)
    closed: list[str] = field(default_factory=list)  # ids of open calls the database has and should forget
    spoiled: list[Spoiled] = field(default_factory=list)
    gaps: list[Record] = field(default_factory=list)  # values of events that the drainer itself has to tell
    resumed: list[Record] = field(default_factory=list)  # streams that took up a call, maybe another writer's
    boot: Record | None = None
    clean: bool = False
    torn: str = ""


def parse(items: Iterable[Frame | Hole]) -> list[Parsed]:
    """Read the payloads; what cannot be read comes with the error instead."""
    parsed: list[Parsed] = []
    for item in items:
        if isinstance(item, Hole):
            parsed.append((item, None))
            continue
        try:
            value = orjson.loads(item.payload)
            if not isinstance(value, dict):
                raise TypeError("not an object")
        except (ValueError, TypeError) as error:
            parsed.append((item, error))
        else:
            parsed.append((item, value))
    return parsed


def wanted(parsed: Iterable[Parsed]) -> list[str]:
    """Name the calls that these frames close or change but do not open: the database may know them."""
    opened: set[str] = set()
    needed: set[str] = set()
    for item, value in parsed:
        if not isinstance(item, Frame) or not isinstance(value, dict) or item.kind not in ABOUT_CALLS:
            continue
        key = value.get("id")
        if not isinstance(key, str):
            continue
        if item.opens:
            opened.add(key)
        elif key not in opened:
            needed.add(key)
    return list(needed)


def plan(parsed: Iterable[Parsed], frame: int, seq: int, known: dict[str, Open]) -> DrainPlan:
    """Work out what frames after `frame` mean; `known` are the stored open calls that `wanted` named."""
    made = DrainPlan(frame, seq)
    for item, value in parsed:
        if isinstance(item, Hole):
            hole(made, item)
            continue
        made.frame, made.seq = item.number, item.seq
        try:
            if not isinstance(value, dict):
                raise value or TypeError("nothing")
            step(made, item, value, known)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            number = item.seq if item.opens else None
            made.spoiled.append(Spoiled(item.number, number, "", item.payload, f"unreadable: {error!r:.200}"))
    return made


def step(made: DrainPlan, item: Frame, value: Record, known: dict[str, Open]) -> None:
    kind = item.kind
    if kind == Kind.EVENT:
        made.rows.append(PlannedRow(value, item.number, item.seq))
    elif kind == Kind.INTENT:
        made.open[value["id"]] = Open(value, changed=True)
    elif kind in (Kind.OUTCOME, Kind.ANSWERED):
        before = take(made, known, value["id"])
        merged = merge(before.record if before else {}, value)
        if kind == Kind.OUTCOME:
            close(made, before, merged, item.number)
        else:
            made.open[value["id"]] = Open(
                merged, "call", True, stored=before is not None and before.stored, changed=True
            )
    elif kind == Kind.RESUMABLE:
        before = take(made, known, value["id"])
        merged = merge(before.record if before else {}, value["record"])
        stored = before is not None and before.stored
        made.open[value["id"]] = Open(merged, "call", False, value["wait"], value["until"], stored, True)
    elif kind == Kind.RESUMED:
        made.resumed.append({name: value.get(name) for name in ("id", "call", "until", "answer")})
    elif kind == Kind.COUNTED:
        if item.opens:
            made.open[value["id"]] = Open(value, "counted", changed=True)
            return
        before = take(made, known, value["id"])
        if before is None:
            raise ValueError("a count without its event")
        before.record["count"], before.record["last_ts"] = value["count"], value["last_ts"]
        if value["closed"]:
            close(made, before, before.record, item.number)
        else:
            before.changed = True
            made.open[value["id"]] = before
    elif kind == Kind.BOOT:
        made.boot = value
    elif kind == Kind.CLOSE:
        made.clean = True


def take(made: DrainPlan, known: dict[str, Open], key: str) -> Open | None:
    """Find an open call, in this batch or in the database."""
    return made.open.pop(key, None) or known.pop(key, None)


def merge(intent: Record, outcome: Record) -> Record:
    """Give an outcome what only the intent has."""
    if "request_json" not in outcome and "request_json" in intent:
        outcome["request_json"] = intent["request_json"]
    return outcome


def close(made: DrainPlan, before: Open | None, record: Record, frame: int) -> None:
    made.rows.append(PlannedRow(record, frame, int(record.get("seq") or 0)))
    if before is not None and before.stored:
        made.closed.append(str(record["id"]))


def hole(made: DrainPlan, item: Hole) -> None:
    if item.torn:
        made.torn = f"{item.place}: {len(item.data)} bytes cut off"
        return
    if item.data:
        made.spoiled.append(Spoiled(item.first, None, item.place, item.data, "damaged"))
    made.gaps.append(
        {
            "reason": "journal_damaged",
            "count": max(item.last_seq - item.first_seq + 1, 1),
            "gap": {
                "frames": [item.first, item.last],
                "first_seq": item.first_seq,
                "last_seq": item.last_seq,
                "place": item.place,
            },
        }
    )
    made.frame, made.seq = max(made.frame, item.last), max(made.seq, item.last_seq)


def finish(made: DrainPlan, left: dict[str, Open], now: int) -> None:
    """End a boot whose process is gone: every call still open becomes its event; `left` are those the database has.

    One whose client may come back for its answer waits for that, from `now` (µs) on, as if its stream had just ended.
    """
    waiting: dict[str, Open] = {}
    for key, item in {**left, **made.open}.items():
        record = item.record
        if item.wait:
            waiting[key] = item
            if not item.until:
                record["outcome"], record["reason"] = "interrupted", "process_died"
                item.until, item.changed = now + item.wait * 1_000_000, True
            continue
        if item.kind == "counted":
            if not made.clean:
                made.gaps.append(
                    {
                        "reason": "process_died",
                        "count": 1,
                        "gap": {
                            "counted": key,
                            "seconds": 1,
                            "why": "up to a second of this count was not written down",
                        },
                    }
                )
        elif item.answered:
            details = orjson.loads(record.get("details") or "{}")
            details["stream"] = {**(details.get("stream") or {}), "ended": "process_died"}
            record["details"] = orjson.dumps(details).decode()
        else:
            record["outcome"], record["reason"] = "interrupted", "process_died"
        made.rows.append(PlannedRow(record, made.frame, int(record.get("seq") or 0)))
        if item.stored:
            made.closed.append(key)
    made.open = waiting
