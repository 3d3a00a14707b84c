"""What Django's system check says of an installation, before any command works on it."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Warning, register

from core.conf import settings as conf

# Not settings, though they look like some: the worker's own mark, and the name that the documentation gives a client's key.
NOT_MEANT = frozenset({"SENTINEL_WORKER", "SENTINEL_KEY"})


@register()
def environment(**_: Any) -> list[CheckMessage]:
    """Warn about variables that are no settings, and about secrets that `serve` will refuse to start without."""
    found: list[CheckMessage] = [
        Warning(f"{name} is set, and is no setting of MCP Sentinel.", hint="See docs/settings.md.", id="sentinel.W001")
        for name in conf.unknown()
        if name not in NOT_MEANT and not name.startswith("SENTINEL_TEST")
    ]
    problem = conf.unfit_for_production(settings.SENTINEL)
    if problem:
        found.append(Warning(problem, hint="`serve` refuses to start like this.", id="sentinel.W002"))
    return found
