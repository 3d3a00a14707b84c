"""Time-ordered identifiers (UUIDv7, RFC 9562) that are primary key, keyset cursor and partition key at once.

    >>> a, b = uuid7(), uuid7()
    >>> a < b, a.version
    (True, 7)
    >>> ts_of(uuid7(1_700_000_000_123_456))
    1700000000123456

The 48 bits of milliseconds are followed by 12 bits that hold the microseconds within it (RFC 9562, 6.2, method 3), so
that `ts_of` gives the time back exactly and events of one millisecond sort in the order in which they began.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from datetime import UTC, datetime

__all__ = ("is_uuid7", "ts_of", "uuid7", "uuid7_floor")

_VERSION_AND_VARIANT = (0x7 << 76) | (0x2 << 62)
_FIXED = (0xF << 76) | (0x3 << 62)
_RANDOM_BITS = (1 << 62) - 1
_MAX_MS = (1 << 48) - 1
# A clock that steps back by less than this keeps ids in order; a greater step is believed, since an id must lie in the
# partition of its own time.
_STEP_US = 1_000_000

_lock = threading.Lock()
_last = 0
_UUID_new = uuid.UUID.__new__
_set = object.__setattr__
_SAFE = uuid.SafeUUID.unknown


# Random bytes are fetched by the page: the system call gives up the interpreter, and that costs more than the bytes.
_POOL_BYTES = 4096
_pool: list[int] = []


def _forget() -> None:
    global _lock, _last
    _lock, _last = threading.Lock(), 0
    _pool.clear()


def _random() -> int:
    """Give 62 random bits, each handed out once (popping a list is atomic)."""
    try:
        return _pool.pop()
    except IndexError:
        fresh = os.urandom(_POOL_BYTES)
        numbers = [int.from_bytes(fresh[at : at + 8], "big") & _RANDOM_BITS for at in range(0, _POOL_BYTES, 8)]
        made = numbers.pop()
        _pool.extend(numbers)
        return made


os.register_at_fork(after_in_child=_forget)


def _build(value: int) -> uuid.UUID:
    # uuid.UUID(int=...) spends a microsecond on checks that hold here by construction.
    made = _UUID_new(uuid.UUID)
    _set(made, "int", value)
    _set(made, "is_safe", _SAFE)
    return made


def _time_bits(ts_us: int) -> int:
    ms, us = divmod(ts_us, 1000)
    ms = 0 if ms < 0 else min(ms, _MAX_MS)
    # Rounded up, so that ts_of can round down and meet the same microsecond again.
    return (ms << 80) | _VERSION_AND_VARIANT | (-(-us * 4096 // 1000) << 64)


def uuid7(ts_us: int | None = None) -> uuid.UUID:
    """Make an id for now (ever growing within a process), or for a given time in microseconds since 1970."""
    global _last
    random = _random()
    if ts_us is not None:
        return _build(_time_bits(ts_us) | random)
    with _lock:
        made = _time_bits(time.time_ns() // 1000) | random
        if made <= _last and ts_of_int(_last) - ts_of_int(made) < _STEP_US:
            # One more than the last, with the fixed bits kept: an overflow goes over the variant into the time.
            low = (_last & _RANDOM_BITS) + 1 + (random & 0xFFFF)
            made = (_last & ~_RANDOM_BITS) | low if low <= _RANDOM_BITS else _time_bits(ts_of_int(_last) + 1) | low >> 3
        _last = made
    return _build(made)


def ts_of_int(value: int) -> int:
    """Microseconds since 1970 in the 128-bit number of a UUIDv7."""
    return (value >> 80) * 1000 + (((value >> 64) & 0xFFF) * 1000 >> 12)


def ts_of(value: uuid.UUID) -> int:
    """Microseconds since 1970 at which an id was made."""
    return ts_of_int(value.int)


def is_uuid7(value: uuid.UUID) -> bool:
    """Tell a UUIDv7 by its version and variant."""
    return value.int & _FIXED == _VERSION_AND_VARIANT


def uuid7_floor(moment: datetime) -> uuid.UUID:
    """Smallest id of a moment: `id >= uuid7_floor(a) AND id < uuid7_floor(b)` is the time from a until before b."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return _build(_time_bits((delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds))
