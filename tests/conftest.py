"""Fixtures for every test: a running gateway, shared by the end-to-end tests of one worker."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import fixtures, schedule
from tests.support.fixtures import Everything, Stage
from tests.support.upstream import FakeUpstream


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """In a parallel run, let the tests that stand on the same gateway go to the same worker."""
    return schedule.Together(config, log) if config.getoption("dist") == "loadgroup" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a parallel run, let what takes longest begin first."""
    if hasattr(config, "workerinput"):
        schedule.in_order(items)


@pytest.fixture(autouse=True)
def an_orphanage_no_longer() -> Iterator[None]:
    """Transports that start commands make this process the parent of orphans: for a test's own, not for all that follow."""
    yield
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    """A gateway under `serve`, the fake upstream `fake`, a key per default role."""
    yield from fixtures.stage()


@pytest.fixture(scope="session")
def daphne_stage() -> Iterator[Stage]:
    """The same under Daphne."""
    yield from fixtures.stage("daphne")


@pytest.fixture
def fake(stage: Stage) -> FakeUpstream:
    """The fake upstream, with nothing scripted and nothing seen."""
    stage.fake.forget()
    return stage.fake


@pytest.fixture(scope="session")
def everything_server(stage: Stage) -> Iterator[Everything]:
    """The everything server, known to the gateway as `everything`."""
    with Everything() as server:
        stage.gateway.add_upstream("everything", server.url)
        time.sleep(1.0)
        yield server


@pytest.fixture
def everything(everything_server: Everything) -> Everything:
    """The everything server, with nothing seen."""
    everything_server.seen(forget=True)
    return everything_server
