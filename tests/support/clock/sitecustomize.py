"""A wall clock that a test can set, in every Python process that has this folder on its PYTHONPATH.

SENTINEL_TEST_CLOCK names a file; the whole number in it is added to the time, in seconds. Monotonic clocks stay as they are, as
they do when somebody sets a machine's clock.
"""

import mmap
import os
import struct
import time

_place = os.environ.get("SENTINEL_TEST_CLOCK")
if _place:
    with open(_place, "r+b") as _file:
        _shared = mmap.mmap(_file.fileno(), 8)
    _time, _time_ns = time.time, time.time_ns

    def _offset() -> int:
        return struct.unpack("<q", _shared[:8])[0]

    time.time = lambda: _time() + _offset()
    time.time_ns = lambda: _time_ns() + _offset() * 1_000_000_000
