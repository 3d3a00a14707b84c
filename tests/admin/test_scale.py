"""Two hundred thousand events: every kind of page within its time, and no plan that reads a large partition whole."""

from __future__ import annotations

import statistics
import time

import pytest
from django.db import connection
from django.test import Client

from bench.sample_data import fill
from sentinel import overview

pytestmark = [pytest.mark.django_db, pytest.mark.slow, pytest.mark.timeout(300)]
LIST = "/admin/audit/auditevent/"
# Wide bounds, for a machine that runs other tests beside: they tell a plan that reads everything from one that does not.
MEDIAN_MS, SLOWEST_MS = 1000, 3000
VIEWS = [
    "", "outcome=denied", "outcome=denied&outcome=limited", "outcome=interrupted", "tool=delete_customer", "tool=get_thread&tool=send_mail", "range=1h",
    "range=7d&outcome=limited", "q=expired", "q=customer", "q=nothing-like-this", "q=cu", "reason=duplicate_member", "role=readonly&upstream=mail", "slower=2500",
    "ip=10.0.0.1", "session=0123", "rule=3", "tool=delete_customer&outcome=allowed&role=readonly", "from=2020-01-01T00:00&to=2020-01-02T00:00",
]  # fmt: skip


@pytest.fixture
def many(db) -> None:
    connection.ensure_connection()
    fill(connection.connection, 200_000, 8, say=lambda _: None, vacuum=False)


def test_pages_stay_quick(many, admin_client: Client):
    slow: dict[str, float] = {}
    medians = []
    views = [f"{LIST}?{view}" for view in VIEWS] + ["/admin/", "/admin/?range=7d", "/admin/?range=1h"]
    deep = LIST
    for _ in range(6):  # and from a place some pages back
        text = admin_client.get(deep).content.decode()
        deep = LIST + text.split('rel="next"')[0].rpartition('href="')[2].rstrip('" ').replace("&amp;", "&")
    for view in [*views, deep]:
        admin_client.get(view)
        taken = []
        for _ in range(5):
            overview._kept.clear()
            began = time.perf_counter()
            assert admin_client.get(view).status_code == 200
            taken.append((time.perf_counter() - began) * 1000)
        medians.append(statistics.median(taken))
        if medians[-1] > SLOWEST_MS:
            slow[view] = medians[-1]
    assert not slow
    assert statistics.median(medians) <= MEDIAN_MS, sorted(medians)


def test_no_indexed_view_reads_a_partition_whole(many):
    with connection.cursor() as cursor:
        for where in (
            "true",
            "outcome = 'denied'",
            "tool_name = 'delete_customer'",
            "api_key_id = '00000000-0000-4000-8000-000000000007'",
        ):
            cursor.execute(f"EXPLAIN SELECT id FROM audit_auditevent WHERE {where} ORDER BY id DESC LIMIT 51")
            # Days to come are empty, and read whole at no cost.
            whole = [
                row[0] for row in cursor.fetchall() if "Seq Scan on audit" in row[0] and "cost=0.00..0.00" not in row[0]
            ]
            assert whole == []
