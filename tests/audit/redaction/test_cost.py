"""What redaction costs is bounded by steps, whatever a text is made of; no input is dear for its length."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from audit.redaction import escapes
from audit.redaction.detect import budget
from audit.redaction.detect.budget import Effort, TooDear
from audit.redaction.redactor import Redactor
from audit.redaction.sanitizer import MISSING, Sanitizer
from tests.corpus import costs

ROOT = Path(__file__).resolve().parents[3]
STEPS_A_BYTE = 200
REDACTOR = Redactor(b"k" * 32)
SANITIZER = Sanitizer(b"k" * 32)
# Each was once a hundred times dearer than a text of its length may be.
ONCE_DEAR = [
    "bearer+", "sk-", "?sig=+A", "key:+AB", "'token", "hmac'", "&hmac%3dqqqq\tis +AMC", "eyJ", "t1.", "npm_", "sq0p", "csk-",
    '"name":"x",', "%25", "&amp;", "\\\\u0041", "password,x\n1,2\n", "[[[]]],", "key: '--use",
]  # fmt: skip


class Meter(Effort):
    """Counts what is spent, over all texts."""

    spent = 0

    def spend(self, steps: int) -> None:
        Meter.spent += steps
        super().spend(steps)


@pytest.mark.parametrize("unit", ONCE_DEAR)
@pytest.mark.parametrize("wrap", range(len(costs.WRAPS)))
def test_no_text_takes_more_steps_than_it_is_worth(unit, wrap, monkeypatch):
    monkeypatch.setattr("audit.redaction.text.Effort", Meter)
    for size in (1_500, 3_000, 6_000):
        Meter.spent = 0
        text = costs.Dear(0.0, "", unit, wrap).text(size)
        REDACTOR.text(text)
        assert Meter.spent <= STEPS_A_BYTE * len(text.encode()) + 2 * budget.AT_LEAST, size


def test_what_costs_too_much_is_replaced_whole_and_stays_so(monkeypatch):
    monkeypatch.setattr(budget, "PER_BYTE", 1)
    monkeypatch.setattr(budget, "AT_LEAST", 1_500)
    text = "key:+AB" * 200 + " password=hunter2secret"
    shown, count = REDACTOR.text(text)
    assert shown == f"[REDACTED:text:{REDACTOR.fingerprint(text.encode())}]" and count == 1
    assert REDACTOR.text(shown) == (shown, 0)
    value, count = REDACTOR.value({"a": text, "b": "plain", "c": {"password": "x"}})
    assert value["a"] == shown and value["b"] == "plain" and value["c"]["password"] != "x" and count == 2
    wrapped, _ = REDACTOR.value({"a": '{"inner": "' + text + '"}'})
    assert wrapped["a"].startswith("[REDACTED:text:"), "what is within another text is paid for by that"


SHORT = [
    "a\u202e<b>&lt;%0a",
    "\u202e&lt;%41",
    "a\u202e&amp;%0a",
    "Q&amp;A\u200b 50%25",
    "\u200bTom &amp; Ann\\u{7E} 5%20",
    "„ok“ \\u0041%41&lt;",
]


@pytest.mark.parametrize("text", SHORT)
def test_a_short_text_may_be_wrapped_in_every_way(text):
    assert REDACTOR.text(text)[0] == escapes.escape(text)


@pytest.mark.parametrize("unit", [*SHORT, "data:{}", "key: ab12", "password x", "bearer x", "&amp;%25", "%2525252541"])
def test_what_is_done_at_once_is_little_however_many_texts_there_are(unit, monkeypatch):
    monkeypatch.setattr("audit.redaction.text.Effort", Meter)
    one = json.dumps(unit, ensure_ascii=False)
    for count in (1, 8, 30, 60, 90):
        raw = f"[{','.join([one] * count)}]".encode()
        Meter.spent = 0
        SANITIZER.quick(MISSING, raw)
        assert len(raw) > 1024 or Meter.spent <= STEPS_A_BYTE * 1024, (count, Meter.spent)


def test_effort_ends():
    left = Effort(10)
    left.spend(10 * budget.PER_BYTE + budget.AT_LEAST)
    with pytest.raises(TooDear):
        left.spend(1)


def test_ordinary_texts_are_far_from_it(monkeypatch):
    monkeypatch.setattr(budget, "PER_BYTE", budget.PER_BYTE // 2)
    monkeypatch.setattr(budget, "AT_LEAST", budget.AT_LEAST // 2)
    for path in (
        "README.md",
        "THREAT_MODEL.md",
        "docs/clients.md",
        "audit/journal/logger.py",
        "proxy/http/refusals.py",
    ):
        text = (ROOT / path).read_text()[:12_000]
        assert not REDACTOR.text(text)[0].startswith("[REDACTED:text:"), path


def test_a_name_is_read_little_further_than_it_is_kept(monkeypatch):
    read = []
    sanitizer = Sanitizer(b"k" * 32)
    find = sanitizer.redactor.text

    def reading(text, **more):
        read.append(len(text))
        return find(text, **more)

    monkeypatch.setattr(sanitizer.redactor, "text", reading)
    for limit in (64, 256, 512):
        read.clear()
        kept = sanitizer.text("key: value, " * 10_000, limit)
        assert len(kept.encode()) <= limit
        assert max(read) <= limit + 512
    secret = "ghp_abcdEFGH1234567890abcdEFGH1234567890"
    for before in range(200, 270):
        assert "EFGH1234567890" not in sanitizer.text("x " * (before // 2) + secret + " y" * 5_000, 256), before


def test_the_search_finds_nothing_dear():
    """A short search; `python -m tests.corpus.costs` searches as long as one likes."""
    r = random.Random(20)
    found = sorted(costs.search(tuple(costs.READERS), r, size=2_000, tries=400), reverse=True)
    dearest = [one for one in found[:10] if one.cost > costs.MOST]
    # A busy machine makes anything dear once: only what is dear each time, for the machine as it then is, is.
    over = [(one, least) for one in dearest if (least := min(costs.settled(one, 2_000) for _ in range(5))) > costs.MOST]
    assert not over
