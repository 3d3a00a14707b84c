"""What a worker leaves to the garbage collector, for workers that have this folder on their PYTHONPATH.

SENTINEL_TEST_GARBAGE names a file. At SIGUSR1 everything so far is collected and the collector is switched off; at SIGUSR2 a line of
JSON is added: what only a collection would have freed since, by type and by the function of a frame.
"""

import gc
import json
import os
import signal
import sys
from collections import Counter

_place = os.environ.get("SENTINEL_TEST_GARBAGE")
if _place and "worker" in sys.orig_argv:

    def _tell(what):
        with open(_place, "a") as file:
            file.write(json.dumps(what) + "\n")

    def _begin(*_):
        gc.collect()
        gc.disable()
        _tell({})

    def _look(*_):
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found = Counter(type(one).__name__ for one in gc.garbage)
        found += Counter(one.f_code.co_qualname for one in gc.garbage if type(one).__name__ == "frame")
        gc.garbage.clear()
        gc.set_debug(0)
        _tell(found)

    signal.signal(signal.SIGUSR1, _begin)
    signal.signal(signal.SIGUSR2, _look)
