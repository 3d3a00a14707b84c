"""Claims on the safety of what was queued, and what is raised when it is not safe.

AuditUnavailable            the log cannot take this; what is answered then is the caller's matter
+-- JournalUnavailable      the device failed, or a frame's sync did
    +-- JournalFull         no room for another call and its outcome
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any, Protocol

__all__ = ["AuditUnavailable", "Done", "JournalFull", "JournalUnavailable", "Ticket"]


class AuditUnavailable(Exception):
    """The log cannot take an event now; nothing may be executed."""


class JournalUnavailable(AuditUnavailable):
    """The journal's device failed."""


class JournalFull(JournalUnavailable):
    """There is no room for another call and its outcome."""


class SyncedWriter(Protocol):
    """What a ticket asks of its journal."""

    synced: int

    def failure(self, number: int) -> JournalUnavailable | None:
        """Say why a frame is not safe, when that is known."""
        ...

    def enlist(
        self, loop: asyncio.AbstractEventLoop, number: int, future: asyncio.Future[None], patient: bool
    ) -> None: ...

    def block(self, settled: Callable[[], bool], timeout: float | None) -> bool:
        """Keep a thread until something is settled."""
        ...


class Ticket:
    """A claim on one frame's safety: `await` it, or `wait()` in a thread. Raises JournalUnavailable."""

    __slots__ = ("_journal", "number", "patient")

    def __init__(self, journal: SyncedWriter, number: int) -> None:
        self._journal = journal
        self.number = number
        self.patient = True  # waits as long as the device hangs; otherwise `give_up` ends the waiting

    @property
    def done(self) -> bool:
        """Whether the frame is safe."""
        return self._journal.synced >= self.number

    def __await__(self) -> Generator[Any, None, None]:
        journal = self._journal
        if journal.synced >= self.number:
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        journal.enlist(loop, self.number, future, self.patient)
        # The writer publishes before it looks for waiters, we register before we look at what it published: one of us sees.
        if journal.synced >= self.number:
            future.cancel()
            return
        if (error := journal.failure(self.number)) is not None:
            future.cancel()
            raise error
        yield from future

    def wait(self, timeout: float | None = 10.0) -> None:
        """Block until the frame is safe (for code without an event loop)."""
        journal = self._journal
        done = journal.block(lambda: journal.synced >= self.number or journal.failure(self.number) is not None, timeout)
        if journal.synced >= self.number:
            return
        raise (journal.failure(self.number) if done else None) or JournalUnavailable(
            "the journal did not answer in time"
        )


class Done:
    """A ticket for what needs no waiting."""

    __slots__ = ()
    number = 0
    done = True

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield

    def wait(self, timeout: float | None = None) -> None:
        """Return at once."""
