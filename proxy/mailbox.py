"""Streams of the older HTTP+SSE transport in front of an upstream that speaks another: answers by post, read by GET.

A client that knows no other transport opens a stream here and posts its messages elsewhere, perhaps to another worker. So
each worker keeps the mailboxes of the streams it holds, and a unix socket below SENTINEL_VAR by which the others put
answers into them. A mailbox lives as long as its stream; the address that reaches it is sealed for one key.

    worker that holds the stream:   mailbox = mailboxes.create();  data = await mailbox.read()
    worker that took the post:      link = await mailboxes.link(address);  await link.push(event)
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from proxy.ledger import Hold

log = logging.getLogger("sentinel.proxy")

#: what an event takes beside its bytes
_EACH = 64
_FRAME = struct.Struct("!cI")
_EVENT, _SESSION = b"E", b"S"


class Link(Protocol):
    """A way into one mailbox."""

    #: the upstream's own session id, once it gave one
    session: bytes

    async def push(self, event: bytes) -> None:
        """Put one event into the stream."""

    async def remember(self, session: bytes) -> None:
        """Note the upstream's session id for the posts that follow."""

    def close(self) -> None:
        """Let go of the mailbox."""


class Mailbox:
    """What waits to be written into one open stream."""

    def __init__(self, name: str, forget: Callable[[], None], held: Hold, overflown: Callable[[], None]) -> None:
        self.name = name
        self.session = b""
        self.closed = False
        self._events: deque[bytes] = deque()
        self._unread = 0
        self._arrived = asyncio.Event()
        self._forget = forget
        self._held = held
        self._overflown = overflown

    async def push(self, event: bytes) -> None:
        """Put one event into the stream; it ends when the client leaves more unread than its key may have waiting."""
        if self.closed:
            return
        self._unread += len(event) + _EACH
        if self._held.set(self._unread):
            self._events.append(event)
            self._arrived.set()
        else:
            self.shut()
            self._overflown()

    async def remember(self, session: bytes) -> None:
        """Note the upstream's session id."""
        self.session = session

    def close(self) -> None:
        """Do nothing: the mailbox is the stream's."""

    def shut(self) -> None:
        """End the mailbox with its stream."""
        self.closed = True
        self._events.clear()
        self._held.close()
        self._arrived.set()
        self._forget()

    async def read(self) -> bytes:
        """Wait for the next event; b"" when the mailbox was shut."""
        while not self._events:
            if self.closed:
                return b""
            self._arrived.clear()
            await self._arrived.wait()
        event = self._events.popleft()
        self._unread -= len(event) + _EACH
        self._held.set(self._unread)
        return event


class Remote:
    """A mailbox that another worker of this machine holds."""

    def __init__(self, writer: asyncio.StreamWriter, session: bytes) -> None:
        self._writer = writer
        self.session = session

    async def push(self, event: bytes) -> None:
        """Put one event into the stream, wherever it is."""
        await self._write(_EVENT, event)

    async def remember(self, session: bytes) -> None:
        """Note the upstream's session id where the stream is."""
        self.session = session
        await self._write(_SESSION, session)

    async def _write(self, kind: bytes, data: bytes) -> None:
        try:
            self._writer.write(_FRAME.pack(kind, len(data)) + data)
            await self._writer.drain()
        except OSError:
            log.info("a stream of another worker ended before its answer")

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


class Mailboxes:
    """The mailboxes of one worker, and its way to those of the others."""

    def __init__(self, folder: Path, slot: str) -> None:
        self.slot = slot
        self.folder = folder
        self._held: dict[str, Mailbox] = {}
        self._server: asyncio.Server | None = None
        self._here = -1

    async def start(self) -> None:
        """Listen for other workers."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # By way of a descriptor, since the path of a unix socket may be no longer than 107 bytes.
        self._here = os.open(self.folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        path = self._path(self.slot)
        with suppress(FileNotFoundError):
            os.unlink(path)
        self._server = await asyncio.start_unix_server(self._serve, path)

    def _path(self, slot: str) -> str:
        return f"/proc/self/fd/{self._here}/mail-{slot}.sock"

    async def stop(self) -> None:
        """Shut every mailbox and stop listening."""
        for mailbox in list(self._held.values()):
            mailbox.shut()
        if self._server is not None:
            self._server.close()
        if self._here >= 0:
            with suppress(FileNotFoundError):
                os.unlink(self._path(self.slot))
            os.close(self._here)
            self._here = -1

    def create(self, held: Hold, overflown: Callable[[], None]) -> Mailbox:
        """Make the mailbox of a stream that opens; `overflown` is told when more waits in it than `held` takes."""
        name = secrets.token_hex(16)
        mailbox = Mailbox(name, lambda: self._forget(name), held, overflown)
        self._held[name] = mailbox
        return mailbox

    def _forget(self, name: str) -> None:
        self._held.pop(name, None)

    def address(self, mailbox: Mailbox) -> bytes:
        """Give what reaches a mailbox from any worker (to be sealed)."""
        return f"{self.slot}.{mailbox.name}".encode()

    async def link(self, address: bytes) -> Link | None:
        """Reach a mailbox; None when its stream has ended."""
        slot, _, name = address.decode("ascii", "replace").partition(".")
        if slot == self.slot:
            return self._held.get(name)
        if not slot.isalnum():
            return None
        writer = None
        try:
            async with asyncio.timeout(2):
                reader, writer = await asyncio.open_unix_connection(self._path(slot))
                writer.write(name.encode() + b"\n")
                await writer.drain()
                line = await reader.readline()
        except (OSError, TimeoutError):
            line = b""
        if not line.startswith(b"+"):
            if writer is not None:
                writer.close()
            return None
        assert writer is not None  # noqa: S101 - a line came from it
        return Remote(writer, line[1:].strip())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            mailbox = self._held.get((await reader.readline()).decode("ascii", "replace").strip())
            writer.write(b"+" + mailbox.session + b"\n" if mailbox is not None else b"-\n")
            await writer.drain()
            while mailbox is not None:
                kind, length = _FRAME.unpack(await reader.readexactly(_FRAME.size))
                data = await reader.readexactly(length)
                if kind == _SESSION:
                    mailbox.session = data
                else:
                    await mailbox.push(data)
        except (asyncio.IncompleteReadError, ValueError, OSError):
            pass
        finally:
            writer.close()
