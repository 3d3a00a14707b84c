"""How a process comes to know what administrators want redacted.

A worker's snapshot calls `load` whenever the rules have changed; the drainer follows them in a thread; a command asks once,
before it writes its first event. What cannot be used raises or is logged, and leaves in place what was known.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

import psycopg
from django.conf import settings
from django.db import DatabaseError, connections, transaction

from audit.redaction import sanitizer
from audit.redaction.rules import PatternError, RedactionRuleSet
from core.db import connect

__all__ = ["ensure", "follow", "load", "take"]

log = logging.getLogger("sentinel.audit")

ROWS = "SELECT kind, value, label FROM audit_redactionrule WHERE enabled ORDER BY id"
FOLLOW_SECONDS = 1.0
_lock = threading.Lock()
_known = False


def load(connection: psycopg.Connection[Any]) -> RedactionRuleSet:
    """Read the rules on a connection of psycopg's own, and redact by them from now on. Raises PatternError."""
    cursor = connection.cursor(row_factory=psycopg.rows.tuple_row)
    return take(RedactionRuleSet.of(cursor.execute(ROWS).fetchall()))


def take(rules: RedactionRuleSet) -> RedactionRuleSet:
    """Make rules this process's own."""
    global _known
    with _lock:
        if sanitizer.current().redactor.rules != rules:
            sanitizer.install(settings.SENTINEL.redaction_key, rules)
        _known = True
    return rules


def ensure(using: str = "default") -> None:
    """Read the rules once, in a process that has no snapshot: a command's."""
    if _known:
        return
    try:
        with transaction.atomic(using=using), connections[using].cursor() as cursor:
            cursor.execute(ROWS)
            rows = cursor.fetchall()
        take(RedactionRuleSet.of(rows))
    except (DatabaseError, PatternError) as error:
        log.warning("what administrators want redacted is not known here: %s", str(error).splitlines()[0])


def follow(dsn: str, stop: threading.Event) -> threading.Thread:
    """Keep to the rules in a thread until told to stop; a database that does not answer leaves them as they are."""
    thread = threading.Thread(target=_following, args=(dsn, stop), name="redaction rules", daemon=True)
    thread.start()
    return thread


def _following(dsn: str, stop: threading.Event) -> None:
    told = ""
    while not stop.is_set():
        try:
            with connect(dsn, "mcp-sentinel redaction rules", seconds=5) as connection:
                while True:
                    try:
                        load(connection)
                        told = ""
                    except PatternError as error:
                        if told != str(error):
                            log.error("the redaction rules cannot be used; those known stay: %s", error)
                            told = str(error)
                    if stop.wait(FOLLOW_SECONDS):
                        return
        except (psycopg.Error, OSError):
            stop.wait(FOLLOW_SECONDS)
