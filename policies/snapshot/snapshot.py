"""What every worker decides by: keys, policy and more as of one moment, in memory, swapped whole when something changes.

A daemon thread with a connection of its own listens for changes and compares revisions every half second in case a
notification is missed. It reads on one repeatable-read transaction, builds off the event loop, and swaps one reference.
What cannot be built leaves the old object in its place and raises an alarm; what cannot be confirmed grows old
(`confirmed_age`), and the pipeline refuses calls when it is too old.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg

from core.db import connect
from policies.engine.compiled import PolicySet
from policies.keys.index import AuthResult, KeyRing
from policies.snapshot import loading

log = logging.getLogger("sentinel.policies")

Loader = Callable[[psycopg.Connection[Any]], object]
Subscriber = Callable[["Snapshot | None", "Snapshot"], None]

CHANNEL = "sentinel_changed"
POLL_SECONDS = 0.5
RETRY_BUILD_SECONDS = 10.0
USAGE_SECONDS = 60.0
USAGE = """
INSERT INTO policies_keyusage AS u (key_id, last_used_at, last_ip, last_query_at)
SELECT id, to_timestamp(%(at)s), %(ip)s::inet, CASE WHEN %(query)s THEN to_timestamp(%(at)s) END
FROM policies_apikey WHERE public_id = %(key)s
ON CONFLICT (key_id) DO UPDATE SET last_ip = excluded.last_ip, last_used_at = excluded.last_used_at,
    last_query_at = coalesce(excluded.last_query_at, u.last_query_at)
WHERE excluded.last_used_at > u.last_used_at
"""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Keys and policy of one moment. `version` is the policy version that events carry."""

    version: int
    revisions: Mapping[str, int]
    ring: KeyRing
    policy: PolicySet

    def authenticate(self, presented: str, now: float, client_ip: str | None, via: str = "bearer") -> AuthResult:
        """Authenticate an agent by what it presented; `now` in seconds since 1970."""
        return self.ring.authenticate(presented, now, client_ip, via)

    def authenticate_administrator(
        self, presented: str, now: float, client_ip: str | None, via: str = "bearer"
    ) -> AuthResult:
        """Authenticate a caller of the API, who needs an administrative key."""
        return self.ring.authenticate_administrator(presented, now, client_ip, via)

    def key_is_live(self, key_id: UUID | str, now: float, generation: int | None = None) -> bool:
        """Whether streams that this key (this generation of its secret) opened may go on."""
        key = self.ring.by_id.get(str(key_id))
        return key is not None and key.is_live(now, generation)


class SnapshotHolder:
    """Keeps `current` true. `extra` maps more kinds to loaders; what they return stands in `extras[kind]`."""

    def __init__(
        self,
        dsn: str,
        *,
        peppers: Mapping[int, bytes],
        extra: Mapping[str, Loader] | None = None,
        fingerprint: Callable[[str], str] | None = None,
        poll: float = POLL_SECONDS,
    ) -> None:
        self.current: Snapshot | None = None
        self.extras: dict[str, Any] = {}
        #: what is wrong, by kind: a snapshot that cannot be built, a database that does not answer
        self.alarms: dict[str, str] = {}
        self._dsn, self._peppers, self._extra, self._poll = dsn, dict(peppers), dict(extra or {}), poll
        self._fingerprint = fingerprint
        self._confirmed = float("-inf")
        self._built: dict[str, int] = {}
        self._failed: dict[str, tuple[int, float]] = {}
        self._policy: PolicySet | None = None
        self._ring: KeyRing | None = None
        self._used: dict[str, tuple[float, str, bool]] = {}
        self._usage_written = time.monotonic()
        self._subscribers: list[Subscriber] = []
        self._ready = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    # -- life

    def start(self) -> None:
        """Start the thread; `ready` tells when there is a snapshot."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="sentinel-snapshot", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop the thread, writing down the last uses of keys."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def ready(self, timeout: float | None = None) -> bool:
        """Wait for the first snapshot."""
        return self._ready.wait(timeout)

    def subscribe(self, callback: Subscriber) -> None:
        """Call back from the thread, with the old and the new snapshot, after each swap (extras swap too)."""
        self._subscribers.append(callback)

    def confirmed_age(self) -> float:
        """Seconds since the database last said that this is the newest."""
        return time.monotonic() - self._confirmed

    def load_once(self) -> Snapshot:
        """Read everything now, in this thread; for commands and tests that need no thread."""
        with self._connect() as connection:
            self._refresh(connection)
        if self.current is None:
            raise RuntimeError(f"the policy cannot be loaded: {'; '.join(self.alarms.values())}")
        return self.current

    # -- the thread

    def _connect(self) -> psycopg.Connection[Any]:
        return connect(self._dsn, "mcp-sentinel snapshot", seconds=5)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._connect() as connection:
                    connection.execute(f"LISTEN {CHANNEL}")
                    while not self._stopping.is_set():
                        self._refresh(connection)
                        self._write_usage(connection)
                        for _ in connection.notifies(timeout=self._poll, stop_after=1):
                            break
                    self._write_usage(connection, last=True)
            except (psycopg.Error, OSError) as error:
                if "database" not in self.alarms:
                    log.warning("keys and policy cannot be confirmed: %s", error)
                self.alarms["database"] = f"keys and policy cannot be confirmed: {error}"
                self._stopping.wait(self._poll)
            except Exception:
                log.exception("the snapshot's thread failed; it goes on")
                self._stopping.wait(self._poll)

    def _refresh(self, connection: psycopg.Connection[Any]) -> None:
        asked = time.monotonic()
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            revisions = loading.revisions(connection)
            kinds = [kind for kind in ("policy", "keys", *self._extra) if self._due(kind, revisions.get(kind, 0))]
            changed = [kind for kind in kinds if self._build(connection, kind, revisions.get(kind, 0))]
        finally:
            with suppress(psycopg.Error):
                connection.execute("ROLLBACK")
        if changed:
            self._swap()
        if not self._failed:
            self._confirmed = asked
        self.alarms.pop("database", None)

    def _due(self, kind: str, number: int) -> bool:
        if self._built.get(kind) == number:
            self._failed.pop(kind, None)
            self.alarms.pop(kind, None)
            return False
        failed = self._failed.get(kind)
        return failed is None or failed[0] != number or time.monotonic() - failed[1] > RETRY_BUILD_SECONDS

    def _build(self, connection: psycopg.Connection[Any], kind: str, number: int) -> bool:
        """Build one kind anew; what fails keeps its old object and raises an alarm."""
        try:
            if kind == "policy":
                self._policy = PolicySet(loading.load_policy(connection, number))
            elif kind == "keys":
                self._ring = KeyRing(
                    loading.load_keys(connection), self._peppers, used=self._used, fingerprint=self._fingerprint
                )
            else:
                self.extras = {**self.extras, kind: self._extra[kind](connection)}
        except psycopg.OperationalError:
            raise
        except Exception as error:
            log.exception("a new snapshot of %s could not be built; the old one stays", kind)
            self._failed[kind] = (number, time.monotonic())
            self.alarms[kind] = f"{kind} revision {number} could not be built: {error}"
            return False
        self._built[kind] = number
        self._failed.pop(kind, None)
        self.alarms.pop(kind, None)
        return True

    def _swap(self) -> None:
        if self._policy is None or self._ring is None:
            return
        old, new = self.current, Snapshot(self._policy.version, dict(self._built), self._ring, self._policy)
        self.current = new
        lacking = self._ring.without_pepper()
        if lacking:
            self.alarms["peppers"] = f"no pepper for {len(lacking)} live keys, such as {lacking[0]}"
        else:
            self.alarms.pop("peppers", None)
        self._ready.set()
        for callback in self._subscribers:
            try:
                callback(old, new)
            except Exception:
                log.exception("a subscriber to snapshots failed")

    def _write_usage(self, connection: psycopg.Connection[Any], *, last: bool = False) -> None:
        if not self._used or (not last and time.monotonic() - self._usage_written < USAGE_SECONDS):
            return
        self._usage_written = time.monotonic()
        taken = {key: self._used.pop(key) for key in list(self._used)}
        rows = [{"key": key, "at": at, "ip": ip or None, "query": query} for key, (at, ip, query) in taken.items()]
        try:
            with connection.cursor() as cursor:
                cursor.executemany(USAGE, rows)
        except psycopg.OperationalError:
            for key, use in taken.items():
                self._used.setdefault(key, use)  # for the next connection, unless it was used since
            raise


_shared: SnapshotHolder | None = None


def install(holder: SnapshotHolder | None) -> None:
    """Make a holder this process's own, for the API and the admin to ask."""
    global _shared
    _shared = holder


def shared() -> SnapshotHolder | None:
    """This process's holder, when it has one."""
    return _shared
