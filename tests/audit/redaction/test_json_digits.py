"""Numbers keep the digits they were sent with, from the bytes to every form of the log."""

from __future__ import annotations

import json
import re

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.events.event import COLUMNS, Event
from audit.export.formats import exported
from audit.redaction import json_digits
from audit.redaction.rules import RedactionRuleSet
from audit.redaction.sanitizer import Sanitizer

SANITIZER = Sanitizer(b"k" * 32)
NUMBERS = [
    "1500000000000000000000001", "12345678901234567.89", "1.10", "1e2", "1E+2", "-0", "-0.0", "0.10", "100.0", "1.0e-7", "-1.50",
    "9007199254740993", "18446744073709551616", "-9223372036854775809", "0.30000000000000004", "123456789012345678901234567890.5",
    "3.141592653589793238462643", "5e-324", "1.7976931348623157e308",
]  # fmt: skip
SHAPES = [
    '{"n":%s}', '{"n": %s}', '[%s,"\\u00e9"]', '{"s":"v1.2 2026-01-05","n":%s}', ' [ [%s] ] ', '{"password":"x","n":%s}',
    '{"n":%s,"text":"the password is hunter2secret"}', '{"null":null,"n":%s}',
]  # fmt: skip


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_digits_as_they_were_sent(number, shape):
    kept = SANITIZER.payload(raw=(shape % number).encode()).json
    assert re.search(rf"(?<![0-9.eE+-]){re.escape(number)}(?![0-9.eE+-])", kept), kept
    json.loads(kept)
    assert SANITIZER.restored(kept) == kept


@pytest.mark.parametrize("number", NUMBERS)
def test_digits_in_json_within_text(number):
    inner = f'{{"token": "abc9defg", "n": {number}}}'
    for raw in (json.dumps({"text": inner}), json.dumps({"a": json.dumps({"b": inner})}), f"data: {inner}\n\n"):
        kept = SANITIZER.payload(raw=raw.encode()).json
        assert number in kept and "abc9defg" not in kept


def test_every_form_of_an_event():
    raw = b'{"n": 1.10, "m": 1500000000000000000000001}'
    event = Event(sanitizer=SANITIZER, request_json=raw, response_json=raw, api_key_id=None)
    for form in (
        orjson.dumps(event.as_record()),
        orjson.dumps(exported(dict(zip(COLUMNS, event.as_row(), strict=True)))),
    ):
        assert form.count(b"1.10") == 2 and form.count(b"1500000000000000000000001") == 2
    again = Event(again=True, sanitizer=SANITIZER, **event.as_record())
    assert again.as_record()["request_json"] == event.as_record()["request_json"]
    assert event.request_json["n"] == 1.1, "and it is a number all the same"


def test_a_long_body_says_where_digits_are_not_as_sent():
    raw = b"[" + b"1.10, " * 200_000 + b"1]"
    kept = SANITIZER.payload(raw=raw).json
    assert "[NUMBER:about 1.1]" in kept and "1.1," not in kept.replace("[NUMBER:about 1.1]", "")


def test_a_card_sent_as_a_number_is_still_a_card():
    sanitizer = Sanitizer(b"k" * 32, RedactionRuleSet(patterns=(("order", "15000000[0-9]+"),)))
    assert "[REDACTED:order:" in sanitizer.payload(raw=b'{"n": 1500000000000000000000001}').json


@given(
    st.lists(
        st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(), st.text(max_size=8)), max_size=6
    )
)
def test_what_the_fast_reader_settles_is_what_the_exact_one_reads(values):
    for raw in (json.dumps(values).encode(), json.dumps(values, separators=(",", ":"), ensure_ascii=False).encode()):
        text = raw.decode()
        assert json_digits.dumps(json_digits.loads(raw)).decode() == json.dumps(
            json.loads(text), separators=(",", ":"), ensure_ascii=False
        ) or [str(n) for n in re.findall(r"-?[0-9][0-9.eE+-]*", text)] == re.findall(
            r"-?[0-9][0-9.eE+-]*", json_digits.dumps(json_digits.loads(raw)).decode()
        )
