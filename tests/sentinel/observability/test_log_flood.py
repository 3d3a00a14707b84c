"""The log's own bound: the first lines of a kind are written, the rest are counted and told."""

from __future__ import annotations

import logging
import time

import pytest

from sentinel.observability import log_flood
from sentinel.observability.log_flood import PER_KIND, PER_LOGGER, WINDOW_SECONDS, Bounded


def record(name: str, text: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord(name, logging.WARNING, __file__, 1, text, arguments, None)


def test_each_kind_has_its_bound_and_its_window() -> None:
    now = [0.0]
    bounded = Bounded(lambda: now[0], later=False)
    assert sum(bounded.filter(record("a", "seen %d times", n)) for n in range(1000)) == PER_KIND
    assert bounded.filter(record("a", "another thing"))
    assert bounded.filter(record("b", "seen %d times", 1))
    now[0] += WINDOW_SECONDS
    assert bounded.filter(record("a", "seen %d times", 1))


def test_a_logger_whose_every_line_differs_has_a_bound_too() -> None:
    bounded = Bounded(lambda: 0.0, later=False)
    assert sum(bounded.filter(record("a", f"Invalid HTTP_HOST header: '{n}'")) for n in range(5000)) == PER_LOGGER
    assert bounded.filter(record("b", "what matters"))
    assert len(bounded._windows) <= log_flood.MOST_KINDS


def test_what_was_left_out_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(log_flood, "WINDOW_SECONDS", 0.2)
    bounded = Bounded()
    written = sum(bounded.filter(record("flooded", "seen %d times", n)) for n in range(1000))
    for _ in range(200):
        if caplog.records:
            break
        time.sleep(0.02)
    [told] = [r for r in caplog.records if r.name == "flooded"]
    assert told.left_out == 1000 - written
    assert bounded.filter(told)
