"""Limits shared by several machines: one Lua script per decision, on the clock of the Redis server.

The windows are counted as in the table of one machine: 64 cells and the one that leaves, here the fields of a hash. All keys
share one hash tag, so that a cluster keeps them together and the script may touch them all.

A decision that is not made within a few milliseconds counts as not made. After a failure Redis is left alone for a
second, so that a dead or stopped server does not cost every request the wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from policies.limiter_table import CELLS, Verdict, Window

__all__ = ["RedisDown", "RedisWindows"]

TIMEOUT: Final = 0.02  # seconds for a decision
CONNECT_TIMEOUT: Final = 0.1
REST: Final = 1.0  # seconds without a try after a failure

# KEYS: one hash per window. ARGV: for each its places and its cell length in microseconds.
# Returns {1, number of the tightest, places left in it} or {0, number of the first full one, microseconds until all are free}.
_SCRIPT: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local ring = 65
local full, wait, tightest, left = 0, 0, 1, nil
local current = {}
for i = 1, #KEYS do
  local places, cell = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
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
  if used >= places then
    if full == 0 then full = i end
    table.sort(live, function(a, b) return a[1] < b[1] end)
    local excess = used - places + 1
    for _, entry in ipairs(live) do
      excess = excess - entry[2]
      if excess <= 0 then
        wait = math.max(wait, (entry[1] + ring) * cell - now)
        break
      end
    end
  elseif left == nil or places - used - 1 < left then
    tightest, left = i, places - used - 1
  end
end
if full > 0 then return {0, full - 1, wait} end
for i = 1, #KEYS do
  local cell = tonumber(ARGV[2 * i])
  redis.call('HINCRBY', KEYS[i], string.format('%.0f', current[i]), 1)
  redis.call('PEXPIRE', KEYS[i], math.ceil((ring + 1) * cell / 1000) + 1)
end
return {1, tightest - 1, left}
"""


class RedisDown(Exception):
    """Redis did not decide in time."""


class RedisWindows:
    """Limits in a Redis that every machine asks."""

    def __init__(self, url: str, *, timeout: float = TIMEOUT, prefix: str = "sentinel") -> None:
        self._url = url
        self._timeout = timeout
        self._prefix = prefix
        self._resting_until = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Any = None
        self._script: Any = None

    def _connect(self) -> None:
        """A client for this loop; its pool opens connections as they are needed."""
        self._loop = asyncio.get_running_loop()
        self._client = aioredis.Redis.from_url(
            self._url,
            socket_timeout=self._timeout,
            socket_connect_timeout=CONNECT_TIMEOUT,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
        )
        self._script = self._client.register_script(_SCRIPT)

    async def decide(self, windows: Sequence[Window]) -> tuple[Verdict, int]:
        """Decide; the verdict and the time it was made at. Raises RedisDown."""
        if time.monotonic() < self._resting_until:
            raise RedisDown("Redis is left alone for a moment after a failure")
        if self._client is None or self._loop is not asyncio.get_running_loop():
            self._connect()
        keys: list[str] = []
        arguments: list[int] = []
        for bucket, requests, window in windows:
            keys.append(f"{{{self._prefix}}}:limit:{bucket.hex()}:{window}")
            arguments += (requests, -(-window // (CELLS * 1000)))
        try:
            async with asyncio.timeout(self._timeout + CONNECT_TIMEOUT):
                allowed, which, number = await self._script(keys=keys, args=arguments)
        except (RedisError, OSError, TimeoutError) as error:
            self._resting_until = time.monotonic() + REST
            raise RedisDown(f"{type(error).__name__}: {error}") from error
        if allowed:
            return Verdict(True, int(which), int(number), 0), 0
        return Verdict(False, int(which), 0, int(number) * 1000), 0

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None and self._loop is asyncio.get_running_loop():
            await self._client.aclose()
        self._client = None
