"""Limits shared by several machines: one Lua script per decision, on the clock of the Redis server.

The windows are counted as in the table of one machine: 64 cells and the one that leaves, here the fields of a hash. All keys
share one hash tag, so that a cluster keeps them together and the script may touch them all.

Nobody waits for a Redis that says nothing for longer than TIMEOUT: those who wait by then are let go, and their decisions count
as not made. The answer itself is waited for longer, in the background; until it is there nobody waits at all. So a server that was
away for ten milliseconds is back with its answer, and only one that stays silent for PATIENCE is given up, and left alone for half
a second.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from typing import Any, Final, NamedTuple

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from policies.limiter.table import CELLS, Window, WindowVerdict

__all__ = ["RedisDown", "RedisWindows"]

log = logging.getLogger("sentinel.limits")

TIMEOUT: Final = 0.005  # seconds that Redis may take for a batch; the default of SENTINEL_LIMITER_TIMEOUT
PATIENCE: Final = 0.25  # seconds that a connection, or an answer that is late, gets
BATCH: Final = 8  # decisions asked for at once: so few that other workers' batches before ours still leave time for it
REST: Final = 0.5  # seconds without a try after a failure

# KEYS: one hash per window. ARGV: for each its places, its cell length in microseconds, how many places are asked for, and (0, or
# how many windows before it) the window that it counts the making of: only when that has counted nothing yet.
# Returns {1, number of the tightest, places left in it} or {0, number of the first full one, microseconds until all are free}.
_SCRIPT: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local ring = 65
local full, wait, tightest, left = 0, 0, 1, nil
local current, counted, takes = {}, {}, {}
for i = 1, #KEYS do
  local places, cell, count = tonumber(ARGV[4 * i - 3]), tonumber(ARGV[4 * i - 2]), tonumber(ARGV[4 * i - 1])
  local makes = tonumber(ARGV[4 * i])
  current[i] = math.floor(now / cell)
  local stored = redis.call('HGETALL', KEYS[i])
  local used, live = 0, {}
  for f = 1, #stored, 2 do
    local number = tonumber(stored[f])
    if number + ring > current[i] then
      used = used + tonumber(stored[f + 1])
      live[#live + 1] = {number, tonumber(stored[f + 1])}
    else
      redis.call('HDEL', KEYS[i], stored[f])
    end
  end
  counted[i] = used
  takes[i] = makes == 0 or counted[i - makes] == 0
  if takes[i] and used + count > places then
    if full == 0 then full = i end
    table.sort(live, function(a, b) return a[1] < b[1] end)
    local excess = math.min(used, used + count - places)
    if excess == 0 then wait = math.max(wait, 64 * cell) end
    for _, entry in ipairs(live) do
      excess = excess - entry[2]
      if excess <= 0 then
        wait = math.max(wait, (entry[1] + ring) * cell - now)
        break
      end
    end
  elseif makes == 0 and (left == nil or places - used - count < left) then
    tightest, left = i, places - used - count
  end
end
if full > 0 then return {0, full - 1, wait} end
for i = 1, #KEYS do
  if takes[i] then
    local cell, count = tonumber(ARGV[4 * i - 2]), tonumber(ARGV[4 * i - 1])
    redis.call('HINCRBY', KEYS[i], string.format('%.0f', current[i]), count)
    redis.call('PEXPIRE', KEYS[i], math.ceil((ring + 1) * cell / 1000) + 1)
  end
end
return {1, tightest - 1, left}
"""


class RedisDown(Exception):
    """Redis did not decide in time."""


class _Asked(NamedTuple):
    keys: list[str]
    arguments: list[int]
    answer: asyncio.Future[list[int]]


class RedisWindows:
    """Limits in a Redis that every machine asks.

    Decisions that come while one is under way go out together with the next: one connection, one round trip for several.
    """

    name = "redis"

    def __init__(self, url: str, *, timeout: float = TIMEOUT, prefix: str = "sentinel") -> None:
        self._url = url
        self._timeout = timeout
        self._patience = max(PATIENCE, 2 * timeout)
        self._prefix = prefix
        self._resting_until = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: AbstractConnection | None = None
        self._sha = ""
        self._waiting: list[_Asked] = []
        self._sender: asyncio.Task[None] | None = None
        self._late = False  # whether Redis owes an answer that nobody waits for any more

    async def open(self) -> None:
        """Connect ahead, so that the first call need not; a failure shows at the first call."""
        self._on_this_loop()
        self._start()
        if self._sender is not None:
            await asyncio.wait({self._sender}, timeout=self._patience)

    async def decide(self, windows: Sequence[Window]) -> tuple[WindowVerdict, int]:
        """Decide; the verdict, and zero as the time that its `free_at` is counted from. Raises RedisDown."""
        if time.monotonic() < self._resting_until:
            raise RedisDown("Redis is left alone for a moment after a failure")
        self._on_this_loop()
        if self._late:
            raise RedisDown("Redis has not answered yet")
        keys: list[str] = []
        arguments: list[int] = []
        for bucket, requests, window, count, makes in windows:
            keys.append(f"{{{self._prefix}}}:limit:{bucket.hex()}:{window}")
            arguments += (requests, -(-window // (CELLS * 1000)), count, makes)
        asked = _Asked(keys, arguments, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        self._start()
        allowed, which, number = await asked.answer
        if allowed:
            return WindowVerdict(True, which, number, 0), 0
        return WindowVerdict(False, which, 0, number * 1000), 0

    def _on_this_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._connection, self._sender, self._waiting, self._late = loop, None, None, [], False

    def _start(self) -> None:
        if self._sender is None or self._sender.done():
            self._sender = asyncio.ensure_future(self._send())

    async def _send(self) -> None:
        """Ask for all that wait, until none does; whatever goes wrong, nobody is left waiting."""
        batch: list[_Asked] = []
        try:
            if self._connection is None:
                await self._in_time(self._connect(), batch)
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                answers = await self._in_time(self._ask(batch), batch)
                _tell(batch, answers)
                if all(isinstance(answer, Exception) for answer in answers):
                    raise answers[0]  # a server that can decide nothing: a replica, say, that was the master
        except Exception as error:  # noqa: BLE001 - a wrong URL and a peer that talks nonsense raise what they like
            self._resting_until = time.monotonic() + REST
            self._release(f"{type(error).__name__}: {error}", batch)
            await self._drop()
        finally:
            self._late = False
            self._release("Redis is left alone for a moment after a failure", batch)

    async def _in_time(self, work: Coroutine[Any, Any, Any], batch: Sequence[_Asked]) -> Any:
        """Await what Redis owes; let go of those who wait once it is late, and give up when it stays silent.

        A busy loop of our own is not taken for a slow Redis: what has arrived meanwhile is read first.
        """
        task = asyncio.ensure_future(work)
        try:
            if await _done(task, self._timeout):
                return task.result()
            self._late = True
            self._release(f"no answer in {self._timeout * 1000:.0f} ms", batch)
            if await _done(task, self._patience - self._timeout):
                self._late = False
                return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            elif not task.cancelled():
                task.exception()  # what failed in the last moment is nobody's surprise
        raise TimeoutError(f"no answer in {self._patience * 1000:.0f} ms")

    def _release(self, why: str, batch: Sequence[_Asked]) -> None:
        """Let nobody wait for a Redis that does not answer. What it may still count for them is a place less, never one more."""
        waiting, self._waiting = [*batch, *self._waiting], []
        for asked in waiting:
            if not asked.answer.done():
                asked.answer.set_exception(RedisDown(why))

    async def _connect(self) -> None:
        # Deadlines are kept by _in_time, over whole batches.
        pool = ConnectionPool.from_url(
            self._url, socket_timeout=None, socket_connect_timeout=None, retry=Retry(NoBackoff(), 0)
        )
        connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            self._sha = await self._load(connection)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        self._connection = connection

    async def _load(self, connection: AbstractConnection) -> str:
        await connection.send_command("SCRIPT", "LOAD", _SCRIPT, check_health=False)
        told = await connection.read_response()
        return told.decode() if isinstance(told, bytes) else str(told)

    async def _ask(self, batch: list[_Asked]) -> list[Any]:
        answers = await self._evaluate(batch)
        again = [n for n, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if again:  # another server behind the same name, or a flush
            assert self._connection is not None  # noqa: S101 - it has just answered
            self._sha = await self._load(self._connection)
            for n, answer in zip(again, await self._evaluate([batch[n] for n in again]), strict=True):
                answers[n] = answer
        return answers

    async def _evaluate(self, batch: list[_Asked]) -> list[Any]:
        connection = self._connection
        assert connection is not None  # noqa: S101 - the sender has connected
        commands: list[tuple[str | int, ...]] = [
            ("EVALSHA", self._sha, len(asked.keys), *asked.keys, *asked.arguments) for asked in batch
        ]
        await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        answers: list[Any] = []
        for _ in batch:
            try:
                answers.append(await connection.read_response())
            except ResponseError as error:
                answers.append(error)
        return answers

    async def _drop(self) -> None:
        """Leave the connection, which may be half way through an answer."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            await connection.disconnect(nowait=True)
        except (RedisError, OSError):
            log.debug("the connection to Redis could not be closed cleanly", exc_info=True)

    async def close(self) -> None:
        if self._loop is not asyncio.get_running_loop():
            return
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)
        await self._drop()


def _tell(batch: Sequence[_Asked], answers: Sequence[Any]) -> None:
    """Give each who still waits its answer."""
    for asked, answer in zip(batch, answers, strict=True):
        if asked.answer.done():
            continue  # nobody waits any more
        if isinstance(answer, Exception):
            asked.answer.set_exception(RedisDown(f"{type(answer).__name__}: {answer}"))
        else:
            asked.answer.set_result([int(number) for number in answer])


async def _done(task: asyncio.Future[Any], seconds: float) -> bool:
    """Wait for a task, and for what the loop has to read when the time is up."""
    await asyncio.wait({task}, timeout=seconds)
    for _ in range(5):
        if task.done():
            return True
        await asyncio.sleep(0)
    return task.done()
