"""Which worker of a parallel run takes which tests: a file whole, files that share a gateway together, long ones first.

What costs most is not the tests but what they stand on: a gateway is five processes and a database. A fixture of a module or
of the session is made once for each worker that runs one of its tests. So the tests of a file stay together, and so do files
with the same `pytest.mark.xdist_group`. What takes longest begins first, so that nobody waits for it at the end.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parents[2]
GROUP = re.compile(r'xdist_group\("(\w+)"\)')
#: groups and files that take longest, in the order of the seconds that they take
LONGEST = (
    "stage", "roads", "pipes", "interop", "policy", "resumption", "tests/chaos/test_short.py", "tests/sentinel/server/test_supervisor.py", "tasks",
    "between", "daphne", "tests/e2e/test_backup.py", "tests/e2e/test_rolling.py", "tests/e2e/test_smuggling.py", "streams", "names",
    "neighbours", "tests/admin/test_browser.py", "tests/e2e/test_garbage.py", "tests/e2e/test_browsers.py",
)  # fmt: skip


@cache
def group(path: str) -> str:
    """The group that a file says it is of, or the file itself."""
    found = GROUP.search((ROOT / path).read_text())
    return found[1] if found else path


class Together(LoadScopeScheduling):
    """Gives workers whole groups, in the order of the collection."""

    def __init__(self, config: pytest.Config, log: Any = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # the number of its tests says little about how long a group takes

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid.partition("::")[0])


def in_order(items: list[pytest.Item]) -> None:
    """Sort tests: groups that take longest first, and those of a group together."""
    seen: dict[str, int] = {}
    for name in LONGEST:
        seen.setdefault(name, len(seen))
    for item in items:
        seen.setdefault(group(item.nodeid.partition("::")[0]), len(seen))
    items.sort(key=lambda item: seen[group(item.nodeid.partition("::")[0])])
