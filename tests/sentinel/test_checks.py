from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from django.conf import settings

from sentinel import checks


def test_a_slip_of_the_pen_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENTINEL_ALOWED_HOSTS", "x")
    assert ["SENTINEL_ALOWED_HOSTS" in message.msg for message in checks.environment()] == [True]


def test_secrets_that_serve_will_refuse_are_told(settings: Any) -> None:
    assert checks.environment() == []
    settings.SENTINEL = dataclasses.replace(settings.SENTINEL, production=True, generated=frozenset({"secret_key"}))
    assert [message.id for message in checks.environment()] == ["sentinel.W002"]


def test_the_tests_run_under_their_own_settings() -> None:
    assert settings.SENTINEL.database_url
