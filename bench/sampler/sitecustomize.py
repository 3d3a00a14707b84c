"""Where a worker's CPU goes, by looking at what runs every two milliseconds of CPU; for processes with this folder on their PYTHONPATH.

BENCH_SAMPLES names a file that gets two numbers: how often anything of the audit was at work, and how often the worker was looked at.
"""

import os
import signal
import struct
import sys

_place = os.environ.get("BENCH_SAMPLES")
if _place and "worker" in sys.orig_argv:
    # What makes, cleans, numbers and writes an event; its values are gathered in proxy/outcomes.py.
    _AUDIT = ("/audit/", "/proxy/outcomes.py")
    _file = os.open(_place, os.O_WRONLY | os.O_CREAT, 0o600)
    _seen = [0, 0]

    def _look(_number, frame):
        _seen[1] += 1
        while frame is not None:
            if any(part in frame.f_code.co_filename for part in _AUDIT):
                _seen[0] += 1
                break
            frame = frame.f_back
        os.pwrite(_file, struct.pack("<2q", *_seen), 0)

    signal.signal(signal.SIGPROF, _look)
    signal.setitimer(signal.ITIMER_PROF, 0.002, 0.002)
