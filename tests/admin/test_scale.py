"""Two hundred thousand events: what a page may ask of the database, counted in rows and blocks and never in milliseconds.

How long pages take is for `python -m bench.admin`. Here the same is held by what does not depend on the machine: the rows that
the pages' own queries read, as PostgreSQL counts them, and the blocks that the plans of the indexed views touch.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

import audit.admin.events
import audit.search
from bench.admin import OTHERS, VIEWS
from bench.sample_data import fill
from core.ids import uuid7_floor
from sentinel.site import overview

pytestmark = [pytest.mark.django_db, pytest.mark.slow, pytest.mark.timeout(300)]
LIST = "/admin/audit/auditevent/"
EVENTS, DAYS = 200_000, 8
# Days long past, so that their partitions are new: those of today hold what other tests have left behind.
UNTIL = (datetime.now(UTC) - timedelta(days=40)).replace(hour=0, minute=0, second=0, microsecond=0)
LARGE = 1_000  # rows; a partition beyond that must not be read whole
QUERIES = 9  # the overview of a day asks most: timeline, sums and latencies, each kept and of just now
# A page of 50 from an index, in each partition and for each value; then one window of a search for what has no index.
INDEXED_ROWS = 2_500
SEARCHED_ROWS = 2 * audit.search.FIRST_WINDOW + INDEXED_ROWS
BLOCKS = 400
READ = (
    "SELECT coalesce(sum(idx_tup_fetch), 0)::int, coalesce(max(seq_tup_read), 0)::int FROM pg_stat_xact_user_tables"
    " WHERE relname LIKE 'audit_auditevent%'"
)
SIMPLE = {"", "key", "tool", "outcome", "range", "from", "to", "before", "after"}
PEOPLE = ("django_session", "sentinel_user", "auth_permission", "auth_group", "otp_")


@pytest.fixture
def many(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    connection.ensure_connection()
    fill(connection.connection, EVENTS, DAYS, until=UNTIL, say=lambda _: None, vacuum=False)
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL max_parallel_workers_per_gather = 0")  # what helpers read is counted elsewhere
    # How far a search goes follows the speed it sees. With no time it looks at one window, on any machine.
    monkeypatch.setattr(audit.admin.events, "BUDGET_MS", 0.0)

    def late(walk: Any) -> None:
        """What the planner may try is bounded by a moment on the clock and by nothing else: here that has passed."""
        raise OperationalError

    monkeypatch.setattr(audit.search._SearchWalk, "_attempt", late)


def bound(page: str) -> int:
    """Return how many rows a page may read."""
    query = page.partition("?")[2]
    return INDEXED_ROWS if set(query.replace("=", "&").split("&")[::2]) <= SIMPLE else SEARCHED_ROWS


def rows_read() -> tuple[int, int]:
    """Rows fetched through indexes in this transaction, and the most that was read from one partition in sequence."""
    with connection.cursor() as cursor:
        cursor.execute(READ)
        found: tuple[int, int] = cursor.fetchone()
    return found


def test_budgets(many, admin_client: Client):
    """One test for all: making the events takes longer than asking for them."""
    over = pages_over_budget(admin_client)
    assert not over, "\n".join(map(str, over))
    indexed_views_touch_few_blocks()


def pages_over_budget(client: Client) -> list[tuple[str, int, int, int]]:
    """Open every page; tell which read too many rows, or a large partition whole, or ask too often."""
    middle = uuid7_floor(UNTIL - timedelta(days=DAYS / 2))
    span = f"from={UNTIL - timedelta(days=2):%Y-%m-%dT%H:%M}&to={UNTIL:%Y-%m-%dT%H:%M}"
    lists = [f"{LIST}?{view}" for view in (*VIEWS, span, f"{span}&outcome=limited", f"{span}&role=readonly")]
    deep = [f"{page}&before={middle}".replace("?&", "?") for page in lists]
    events = [f"{LIST}?after={middle}"]
    event = client.get(f"{LIST}?before={middle}").content.decode().partition('<tr id="e')[2][:36]
    others = [f"{LIST}{event}/change/", *(f"/admin/?range={word}" for word in ("1h", "24h", "7d")), *OTHERS]
    wrong = []
    _, whole = rows_read()
    for page in [*lists, *deep, *events, *others]:
        if page not in lists and page not in deep:
            client.get(page)  # the overview sums a quarter of an hour once
        overview._kept.clear()
        before, _ = rows_read()
        with CaptureQueriesContext(connection) as queries:
            assert client.get(page).status_code == 200
        after, now = rows_read()
        own = [query["sql"] for query in queries if not any(word in query["sql"] for word in PEOPLE)]
        own = [sql for sql in own if not sql.startswith(("SAVEPOINT", "RELEASE", "ROLLBACK"))]
        if after - before > bound(page) or now - whole > LARGE or len(own) > QUERIES:
            wrong.append((page, after - before, now - whole, len(own)))
        whole = now
    return wrong


INDEXED = (
    "true",
    "outcome = 'denied'",
    "outcome = 'interrupted'",
    "tool_name = 'delete_customer'",
    "api_key_id = '00000000-0000-4000-8000-000000000007'",
    "search ILIKE '%nothing-like-this%'",
)


def indexed_views_touch_few_blocks() -> None:
    """Hold the plans of what an index answers to the blocks they touch."""
    middle = uuid7_floor(UNTIL - timedelta(days=DAYS / 2))
    with connection.cursor() as cursor:
        for where in INDEXED:
            for place in ("true", f"id < '{middle}'"):
                cursor.execute(
                    "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) SELECT id FROM audit_auditevent"
                    f" WHERE {where} AND {place} ORDER BY id DESC LIMIT 51"
                )
                found = cursor.fetchone()[0]
                plan = (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]
                touched = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
                assert touched <= BLOCKS, (where, place, touched)
                for node in nodes(plan):
                    if node["Node Type"] == "Seq Scan":
                        assert node["Actual Rows"] + node.get("Rows Removed by Filter", 0) <= LARGE, (where, node)


def nodes(plan: dict) -> list[dict]:
    """A plan's node and all below it."""
    return [plan, *(found for below in plan.get("Plans", ()) for found in nodes(below))]
