"""The way to the mailbox of a stream, from the worker that took a post to the one that holds the stream.

Each worker listens on a unix socket below SENTINEL_VAR; a connection is one post's way into one mailbox:

    to the holder       the mailbox's name and what the request is known by, a line; then frames: events, the session, a cancel
    from the holder     "+" with session and version, "-" for no such mailbox, "=" for an id that waits; then why the call is
                        to end, a line, if it is
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from core.ledger import Hold
from proxy.legacy.mailbox import GONE, Duplicate, Mailbox, MailboxLink

log = logging.getLogger("sentinel.proxy")

_FRAME = struct.Struct("!cI")
_EVENT, _ANSWER, _SESSION, _CANCEL = b"E", b"A", b"S", b"C"


class Local(MailboxLink):
    """A mailbox of this worker."""

    def __init__(self, mailbox: Mailbox, request: str) -> None:
        super().__init__(request, mailbox.session, mailbox.version)
        self._mailbox = mailbox

    async def push(self, event: bytes) -> None:
        if self.settled:
            self._mailbox.release(self.request, self.end)
        self._mailbox.push(event)

    async def remember(self, session: bytes, version: bytes) -> None:
        """Note the upstream's session."""
        await super().remember(session, version)
        await self._mailbox.remember(session, version)

    def cancel(self, request: str, reason: str) -> None:
        """Tell the call of another request of this session that its client takes it back, or has."""
        self._mailbox.cancel(request, reason)

    def close(self) -> None:
        """Wait for nothing any more."""
        super().close()
        self._mailbox.release(self.request, self.end)


class Remote(MailboxLink):
    """A mailbox that another worker of this machine holds."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: str, session: bytes, version: bytes
    ) -> None:
        super().__init__(request, session, version)
        self._reader = reader
        self._writer = writer
        self._closed = False
        self._ears = asyncio.get_running_loop().create_task(self._hear()) if request else None

    async def push(self, event: bytes) -> None:
        """Put one event into the stream, wherever it is."""
        await self._write(_ANSWER if self.settled else _EVENT, event)

    async def remember(self, session: bytes, version: bytes) -> None:
        """Note the upstream's session where the stream is."""
        await super().remember(session, version)
        await self._write(_SESSION, session + b" " + version)

    def cancel(self, request: str, reason: str) -> None:
        """Tell the call of another request of this session that its client takes it back, or has."""
        if not self._closed:
            data = f"{request} {reason}".encode()
            self._writer.write(_FRAME.pack(_CANCEL, len(data)) + data)

    async def _write(self, kind: bytes, data: bytes) -> None:
        try:
            self._writer.write(_FRAME.pack(kind, len(data)) + data)
            await self._writer.drain()
        except OSError:
            log.info("a stream of another worker ended before its answer")

    async def _hear(self) -> None:
        try:
            while (line := await self._reader.readline()).endswith(b"\n"):  # half a word is none
                self.end(line.decode("ascii", "replace").strip())
        except (OSError, ValueError):
            pass
        if not self._closed:
            self.end(GONE)  # the worker that held the stream is no more

    def close(self) -> None:
        super().close()
        self._closed = True
        if self._ears is not None:
            self._ears.cancel()
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
            mailbox.shut("server_stopping")
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

    async def link(self, address: bytes, request: str = "") -> MailboxLink | None:
        """Reach a mailbox, to wait there for the answer to a request; None when its stream has ended or ends.

        Raises Duplicate when a request with that id waits there already.
        """
        slot, _, name = address.decode("ascii", "replace").partition(".")
        if slot == self.slot:
            mailbox = self._held.get(name)
            if mailbox is None or mailbox.closing:
                return None
            link = Local(mailbox, request)
            if not mailbox.claim(request, link.end):
                raise Duplicate
            return link
        return await self._remote(slot, name, request) if slot.isalnum() else None

    async def _remote(self, slot: str, name: str, request: str) -> MailboxLink | None:
        writer = None
        try:
            async with asyncio.timeout(2):
                reader, writer = await asyncio.open_unix_connection(self._path(slot))
                writer.write(f"{name} {request}\n".encode())
                await writer.drain()
                line = await reader.readline()
        except (OSError, TimeoutError):
            line = b""
        if writer is not None and line.startswith(b"+"):
            session, _, version = line[1:].rstrip(b"\n").partition(b" ")
            return Remote(reader, writer, request, session, version)
        if writer is not None:
            writer.close()
        if line.startswith(b"="):
            raise Duplicate
        return None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mailbox, request = None, ""

        def end(reason: str) -> None:
            writer.write(reason.encode() + b"\n")

        try:
            name, _, asked = (await reader.readline()).decode("ascii", "replace").strip("\n").partition(" ")
            mailbox = self._held.get(name)
            if mailbox is None or mailbox.closing:
                writer.write(b"-\n")
            elif not mailbox.claim(asked, end):
                writer.write(b"=\n")
            else:
                request = asked
                writer.write(b"+%b %b\n" % (mailbox.session, mailbox.version))
            await writer.drain()
            while mailbox is not None:
                kind, length = _FRAME.unpack(await reader.readexactly(_FRAME.size))
                data = await reader.readexactly(length)
                if kind == _ANSWER:
                    mailbox.release(request, end)
                await _take(mailbox, kind, data)
        except (asyncio.IncompleteReadError, ValueError, OSError):
            pass
        finally:
            if mailbox is not None:
                mailbox.release(request, end)
            writer.close()


async def _take(mailbox: Mailbox, kind: bytes, data: bytes) -> None:
    if kind == _SESSION:
        session, _, version = data.partition(b" ")
        await mailbox.remember(session, version)
    elif kind == _CANCEL:
        wanted, _, reason = data.decode("ascii", "replace").partition(" ")
        mailbox.cancel(wanted, reason)
    else:
        mailbox.push(data)
