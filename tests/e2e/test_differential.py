"""A few of what `python -m tests.support.differential` sends by the hundred thousand."""

from __future__ import annotations

import pytest

from tests.support import differential, readers

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("stage")]


@pytest.mark.parametrize("behind_nginx", [False, True], ids=["direct", "behind-nginx"])
def test_executed_is_authorised_is_audited(behind_nginx: bool) -> None:
    figures, problems = differential.run(2000, behind_nginx=behind_nginx)
    assert problems == [], figures
    assert figures["requests in the log"] == 2000
    assert min(figures["executed"].values()) > 50, figures  # a table that refuses all proves nothing
    assert figures["executed"].keys() == set(readers.ALL)
    assert figures["outcomes"]["denied"] > 20, figures
