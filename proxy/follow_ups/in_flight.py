"""What has been asked and not answered, by the name that its client gave it: for a cancel, which names nothing else.

In the legacy era a cancel is a message of its own, and may reach another worker than the request did. So each worker knows
what is in flight here by key, upstream, session and JSON-RPC id, ends what is taken back, and tells the others on unix
sockets below SENTINEL_VAR. Without a session an id names nobody for sure, since clients that share a key count from one
alike: such a cancel is passed on, and ends nothing here.

Processes and HTTP+SSE sessions, which live in one place, see for themselves what a cancel means (proxy.upstreams.transports.conversation).
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from pathlib import Path

import orjson

from proxy.call import Call
from proxy.http.exchange import CANCELLED

#: key, upstream, the upstream's session, JSON-RPC id
Name = tuple[str, str, bytes, str | int]
CANCEL = "notifications/cancelled"
#: a name is told in one datagram: a session and an id are bounded far below this
_MOST = 64 * 1024


class InFlight:
    """The requests of one worker's legacy sessions that wait for an answer."""

    def __init__(self, folder: Path, slot: str) -> None:
        self._folder = folder
        self._slot = slot
        self._calls: dict[Name, Call] = {}
        self._socket: socket.socket | None = None
        self._here = -1

    def start(self) -> None:
        """Listen for the other workers."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # By way of a descriptor, since the path of a unix socket may be no longer than 107 bytes.
        self._here = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        with suppress(FileNotFoundError):
            os.unlink(self._path(self._mine))
        self._socket.bind(self._path(self._mine))
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._hear)

    def stop(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
            with suppress(FileNotFoundError):
                os.unlink(self._path(self._mine))
            os.close(self._here)
            self._here = -1

    def add(self, call: Call) -> bool:
        """Note a request of a legacy session; False when that session waits for one of this id already."""
        name = _name_of(call)
        if name is None:
            return True
        if name in self._calls:
            return False
        self._calls[name] = call
        return True

    def discard(self, call: Call) -> None:
        name = _name_of(call)
        if name is not None and self._calls.get(name) is call:
            del self._calls[name]

    def take_back(self, cancel: Call) -> None:
        """End the request that a cancel names, in whichever worker it waits."""
        wanted = (
            cancel.message.params.get("requestId") if cancel.message is not None and cancel.message.params else None
        )
        if not cancel.session or not isinstance(wanted, str | int) or isinstance(wanted, bool):
            return
        try:
            told = orjson.dumps([cancel.key_id, cancel.slug, cancel.session.decode("latin-1"), wanted])
        except orjson.JSONEncodeError:
            return  # over 64 bits, or half a surrogate pair: no request has such an id
        self._end((cancel.key_id, cancel.slug, cancel.session, wanted))
        if self._socket is None or len(told) > _MOST:
            return
        for other in os.listdir(self._here):
            if other.startswith("calls-") and other != self._mine:
                with suppress(OSError):  # of a worker that is gone, or too busy to be told
                    self._socket.sendto(told, self._path(other))

    def _end(self, name: Name) -> None:
        call = self._calls.get(name)
        if call is not None:
            call.exchange.end(CANCELLED)

    def _hear(self) -> None:
        while self._socket is not None:
            try:
                told = self._socket.recv(_MOST)
            except OSError:
                return
            key_id, slug, session, rpc_id = orjson.loads(told)
            self._end((key_id, slug, session.encode("latin-1"), rpc_id))

    @property
    def _mine(self) -> str:
        return f"calls-{self._slot}.sock"

    def _path(self, name: str) -> str:
        return f"/proc/self/fd/{self._here}/{name}"


def _name_of(call: Call) -> Name | None:
    message = call.message
    if call.link is not None or not call.session or message is None or message.kind != "request" or message.id is None:
        return None
    return call.key_id, call.slug, call.session, message.id
