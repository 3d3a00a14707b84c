"""What the addresses of upstreams and tools share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from core.api.problems import Problem, wrong
from proxy.services.errors import ServiceError

__all__ = ["telling"]


@contextmanager
def telling(code: str = "invalid") -> Iterator[None]:
    """Say what a service refuses, and which member is meant."""
    try:
        yield
    except ServiceError as error:
        errors = [wrong(error.field, error.message, "refused")]
        if error.field == "command":
            raise Problem("command_refused", error.message, errors=errors) from None
        raise Problem(code, error.message, errors=errors) from None
