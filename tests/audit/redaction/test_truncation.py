"""What is kept of a long payload is valid, within its bounds, and cut at no bad place."""

import json

import orjson
from hypothesis import given
from hypothesis import strategies as st

from audit.redaction.truncation import HEAD_BYTES, MAX_BYTES, TAIL_BYTES, cut_bytes, head_and_tail, head_of_text, prune

TEXTS = st.text(st.characters(codec="utf-8"), max_size=300)
LONG = st.builds(
    lambda unit, n: unit * n, st.text(st.characters(codec="utf-8"), min_size=1, max_size=12), st.integers(1, 3_000)
)


@given(LONG, LONG)
def test_the_envelope_is_json_within_its_bound(head, tail):
    text = head_and_tail(head, tail, 10**12, "d" * 64)
    assert len(text.encode()) <= MAX_BYTES
    kept = json.loads(text)
    assert orjson.loads(text) == kept
    assert kept["_truncated"] is True and kept["_bytes"] == 10**12
    assert head.startswith(kept["_head"]) and tail.endswith(kept["_tail"])
    assert len(orjson.dumps(kept["_head"])) - 2 <= HEAD_BYTES and len(orjson.dumps(kept["_tail"])) - 2 <= TAIL_BYTES


@given(LONG)
def test_the_head_is_as_long_as_it_may_be(text):
    kept = json.loads(head_and_tail(text, "", 1, "d"))["_head"]
    if len(kept) < len(text) and "[" not in text and "\\" not in text:
        assert len(orjson.dumps(text[: len(kept) + 1])) - 2 > HEAD_BYTES


@given(TEXTS, st.integers(0, 400))
def test_cutting_keeps_code_points_whole(text, limit):
    kept = cut_bytes(text, limit)
    assert text.startswith(kept) and len(kept.encode()) <= limit
    assert len(text.encode()) <= limit or len(text[: len(kept) + 1].encode()) > limit


def test_a_replacement_is_not_cut_in_two():
    text = "x" * 20 + "[REDACTED:token:01234567]" + "y" * 20
    for limit in range(len(text)):
        kept = head_of_text(text, limit)
        assert "[" not in kept or "[REDACTED:token:01234567]" in kept


def test_an_escape_is_not_cut_in_two():
    text = "ab\\u{202E}cd"
    assert {head_of_text(text, n) for n in range(3, 10)} == {"ab"}


def test_pruning_a_million_members_is_little_work():
    big = {f"k{i}": i for i in range(200_000)}
    (front, cut), (back, _) = prune(big, 9_000), prune(big, 3_000, from_end=True)
    assert cut
    assert 100 < len(front) < 2_000 and 50 < len(back) < 1_000
    assert list(front) == list(big)[: len(front)]
    assert list(back) == list(big)[-len(back) :]


def test_pruning_drops_the_word_it_cuts():
    text = "word " * 4_000
    kept = prune({"a": text}, 1_000)[0]["a"]
    assert text.startswith(kept) and not kept.endswith("wor")
    secret = "s" * 30_000
    assert len(prune({"a": secret}, 9_000)[0]["a"]) < 9_000 - 2_000


def test_pruning_keeps_a_name_with_its_value():
    pairs = [{"name": "X-Api-Key", "value": f"v{i}"} for i in range(5_000)]
    for pair in [*prune(pairs, 2_000)[0], *prune(pairs, 2_000, from_end=True)[0]]:
        assert set(pair) == {"name", "value"}
    flags = ["--token", "abc"] * 3_000
    assert prune(flags, 500, from_end=True)[0][0] in ("--token", "abc")


@given(
    st.recursive(
        st.one_of(st.integers(), st.text(max_size=30)),
        lambda c: st.one_of(st.lists(c), st.dictionaries(st.text(max_size=5), c)),
        max_leaves=40,
    ),
    st.integers(0, 300),
    st.booleans(),
)
def test_pruning_never_adds(value, budget, from_end):
    kept, dropped = prune(value, budget, from_end)
    assert len(json.dumps(kept)) <= len(json.dumps(value))
    assert dropped or kept == value
