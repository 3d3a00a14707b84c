"""A few of what `python -m tests.support.differential` sends by the hundred thousand."""

from __future__ import annotations

import pytest

from tests.support import differential

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("stage")]


def test_executed_is_authorised_is_audited() -> None:
    figures, problems = differential.run(1500)
    assert problems == [], figures
    assert figures["requests in the log"] == 1500
    assert min(figures["executed"].values()) > 50, figures  # a table that refuses all proves nothing
    assert figures["outcomes"]["denied"] > 20, figures
