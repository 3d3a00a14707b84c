"""A child process that speaks MCP on its standard input and output."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from proxy.mcp.replies import LARGE_BYTES
from proxy.mcp.splice import one_line
from proxy.upstreams.transports.base import Broken, Busy, Unreachable
from proxy.upstreams.transports.stdio import confine, descendants

_LAUNCHER = str(Path(__file__).with_name("launch.py"))
#: the gateway's program: what a command changed there would run as the gateway at the next start
_TREES = tuple(dict.fromkeys((str(Path(__file__).parents[4]), sys.prefix)))
#: what a command's environment holds when nothing else is given; never the gateway's own settings
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")
RING_BYTES = 64 * 1024
MAX_UNSENT = 16 * 1024 * 1024
LINGER_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class CommandLine:
    """What to start, and how."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    directory: str = ""
    memory_bytes: int = 0
    #: the gateway's state folder, which the command must not see (proxy.upstreams.transports.stdio.confine), and the ways to that
    state: str = ""
    ways: tuple[str, ...] = confine.WAYS

    def resolved(self) -> tuple[str, dict[str, str]]:
        """Find the program and make its environment; raises Unreachable."""
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        environment.update(self.environment)
        if not self.argv:
            raise Unreachable("The upstream's command is empty.")
        name = self.argv[0]
        base = self.directory or os.getcwd()
        program = shutil.which(
            os.path.join(base, name) if "/" in name else name, path=environment.get("PATH", os.defpath)
        )
        if program is None:
            raise Unreachable("The upstream's command cannot be started.", detail=f"{name}: command not found")
        if self.directory and not os.path.isdir(self.directory):
            raise Unreachable("The upstream's command cannot be started.", detail=f"{self.directory}: no such folder")
        return program, environment


class Ring:
    """The last lines a command wrote to its standard error, within a bound."""

    def __init__(self, limit: int = RING_BYTES) -> None:
        self._lines: deque[str] = deque()
        self._size = 0
        self._limit = limit
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-self._limit :]
        for line in lines:
            self.add(line.decode("utf-8", "backslashreplace"))

    def add(self, line: str) -> None:
        line = line[:4000]
        self._lines.append(line)
        self._size += len(line) + 1
        while self._size > self._limit:
            self._size -= len(self._lines.popleft()) + 1

    def lines(self) -> list[str]:
        """Give the lines, oldest first."""
        return [*self._lines, self._rest.decode("utf-8", "backslashreplace")] if self._rest else list(self._lines)


class Child(asyncio.SubprocessProtocol):
    """One running process; reads lines, writes lines, is always reaped."""

    def __init__(
        self,
        *,
        received: Callable[[bytes], bool],
        received_large: Callable[[bytes], Awaitable[bool]],
        ended: Callable[[str], None],
        ring: Ring,
        max_line: int,
        mark: int,
    ) -> None:
        self._mark = mark
        self._received = received
        self._received_large = received_large
        self._ended = ended
        self._ring = ring
        self._max_line = max_line
        self._transport: asyncio.SubprocessTransport | None = None
        self._input: asyncio.WriteTransport | None = None
        self._buffer: list[bytes] = []
        self._buffered = 0
        #: lines behind a large one that is being read, and the task that reads it: they are taken in their order
        self._behind: deque[bytes] = deque()
        self._reading: asyncio.Task[None] | None = None
        self._linger: asyncio.TimerHandle | None = None
        self.gone = asyncio.Event()
        self.alive = False
        self.pid = 0

    @classmethod
    async def start(
        cls,
        command: CommandLine,
        *,
        received: Callable[[bytes], bool],
        received_large: Callable[[bytes], Awaitable[bool]],
        ended: Callable[[str], None],
        ring: Ring,
        max_line: int,
    ) -> Child:
        """Start the command; raises Unreachable."""
        program, environment = command.resolved()
        loop = asyncio.get_running_loop()
        descendants.adopt()
        mark = descendants.new_mark()
        if command.state:
            os.makedirs(os.path.join(command.state, confine.HOME), mode=0o700, exist_ok=True)
        arguments: Sequence[str] = (
            sys.executable, "-I", "-S", _LAUNCHER, str(os.getpid()), str(command.memory_bytes), str(mark), command.state,
            ",".join(command.ways), os.pathsep.join(_TREES), program, *command.argv[1:],
        )  # fmt: skip
        try:
            with descendants.starting():
                _, child = await loop.subprocess_exec(
                    lambda: cls(
                        received=received,
                        received_large=received_large,
                        ended=ended,
                        ring=ring,
                        max_line=max_line,
                        mark=mark,
                    ),
                    *arguments,
                    env=environment,
                    cwd=command.directory or None,
                    start_new_session=True,
                )
        except OSError as error:
            raise Unreachable(
                "The upstream's command cannot be started.", detail=f"{program}: {error.strerror}"
            ) from None
        return child

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)
        self._input = cast(asyncio.WriteTransport, self._transport.get_pipe_transport(0))
        self.pid = self._transport.get_pid() or 0
        self.alive = True
        descendants.started(self.pid, self._mark)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 2:
            self._ring.feed(data)
            return
        *lines, rest = data.split(b"\n")
        if lines:
            self._buffer.append(lines[0])
            lines[0] = b"".join(self._buffer)
            self._buffer.clear()
            self._buffered = 0
        for line in lines:
            line = line.strip()
            if self._behind or self._reading is not None or len(line) > LARGE_BYTES:
                self._behind.append(line)
            elif line:
                self._told(line, self._received(line))
        if self._behind and self._reading is None:
            self._hold(True)
            self._reading = asyncio.get_running_loop().create_task(self._read_behind())
        if rest:
            self._buffer.append(rest)
            self._buffered += len(rest)
            if self._buffered > self._max_line:
                self._ring.add(f"(stopped: a line of more than {self._max_line} bytes)")
                self.kill()

    async def _read_behind(self) -> None:
        while self._behind:
            line = self._behind.popleft()
            if len(line) > LARGE_BYTES:
                self._told(line, await self._received_large(line))
            elif line:
                self._told(line, self._received(line))
        self._reading = None
        self._hold(False)

    def _told(self, line: bytes, message: bool) -> None:
        if not message:
            self._ring.add("(on standard output, not a message) " + line[:500].decode("utf-8", "backslashreplace"))

    def _hold(self, hold: bool) -> None:
        """Read no more of the output, or go on."""
        pipe = self._transport.get_pipe_transport(1) if self._transport is not None else None
        if isinstance(pipe, asyncio.ReadTransport) and not pipe.is_closing():
            if hold:
                pipe.pause_reading()
            else:
                pipe.resume_reading()

    def process_exited(self) -> None:
        """Leave nothing behind that it started; what it still had said is read first."""
        self.alive = False
        self._hold(False)
        self._kill_group()
        descendants.end(self.pid)
        if self._transport is not None:
            # something that left the group may hold the pipes open for ever
            self._linger = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell what became of it: it has ended, and its output is read to the end."""
        self.alive = False
        if self._linger is not None:
            self._linger.cancel()
        if self._transport is not None:
            self._transport.close()
        code = self._transport.get_returncode() if self._transport is not None else None
        how = f"signal {_signal_name(-code)}" if code is not None and code < 0 else f"exit status {code}"
        if self._reading is not None:
            self._reading.add_done_callback(lambda _: self._end(how))
        else:
            self._end(how)

    def _end(self, how: str) -> None:
        self._ring.add(f"(ended: {how})")
        self.gone.set()
        self._ended(how)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """A process that closed its output can answer nothing more."""
        if fd == 1 and self.alive:
            self.kill()

    async def write(self, raw: bytes) -> None:
        """Write a message as one line."""
        pipe = self._input
        if not self.alive or pipe is None or pipe.is_closing():
            raise Broken("The upstream's process has ended.", executed=False)
        if pipe.get_write_buffer_size() > MAX_UNSENT:
            raise Busy("The upstream's process does not read its input.")
        pipe.write(one_line(raw) + b"\n")

    def kill(self) -> None:
        """End it and its group at once."""
        self._kill_group()

    async def stop(self, patience: float = 2.0) -> None:
        """End it as the specification says: close its input, then SIGTERM, then SIGKILL."""
        if self._input is not None:
            self._input.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                async with asyncio.timeout(patience):
                    await self.gone.wait()
                return
            except TimeoutError:
                self._kill_group(number)
        await self.gone.wait()

    def _kill_group(self, number: signal.Signals = signal.SIGKILL) -> None:
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
