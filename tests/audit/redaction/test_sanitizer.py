"""Any bytes and any object have an answer: valid, bounded, without a secret, in bounded time."""

import datetime
import decimal
import json
import random
import sys
import time
import unicodedata
import uuid

import orjson
import psycopg
import pytest
from django.db import connection
from hypothesis import example, given
from hypothesis import strategies as st

from audit.redaction import escapes, warm_up
from audit.redaction.detect import matching
from audit.redaction.rules import RedactionRuleSet
from audit.redaction.sanitizer import MISSING, Payload, Sanitizer
from tests.corpus import secrets
from tests.corpus.report import leaks
from tests.corpus.strategies import ODD_OBJECTS, TEXTS, VALUES, bodies

SANITIZER = Sanitizer(b"k" * 32)


def strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def check(payload):
    assert isinstance(payload, Payload)
    if payload.json is None:
        return
    assert len(payload.json.encode()) <= 8_192
    value = json.loads(payload.json)
    assert payload.value == orjson.loads(payload.json)
    for text in strings(value):
        text.encode()  # no lone surrogate
        assert not escapes._AGAIN.search(text)  # nothing invisible


@given(bodies())
@example(b"")
@example(b"\xff\xfe{\x00}\x00")
@example(b'{"a":NaN,"b":-Infinity,"c":1e999}')
@example(b'\xef\xbb\xbf{"password":"x"}')
def test_any_bytes_have_an_answer(raw):
    payload = SANITIZER.payload(raw=raw)
    check(payload)
    assert payload.size == len(raw)
    assert payload.digest == SANITIZER.digest(raw)


@given(ODD_OBJECTS)
def test_any_object_has_an_answer(value):
    check(SANITIZER.payload(value))


@given(ODD_OBJECTS)
def test_nothing_is_caught_at_the_last_moment(value):
    """The net below is for the unforeseen; what these objects hold is foreseen."""
    SANITIZER._value(value, True)


@given(bodies())
def test_nothing_of_bytes_is_caught_at_the_last_moment(raw):
    SANITIZER._raw(raw, bool(raw), "")


class Rude:
    """An object of nobody's making, none of whose code may be called."""

    def __str__(self):
        raise RuntimeError("no")

    __repr__ = __eq__ = __hash__ = __bool__ = __len__ = __iter__ = __str__


def test_rude_objects_and_rings():
    ring: list = []
    ring.append(ring)
    for value in (
        Rude(),
        {"a": Rude()},
        [Rude()],
        ring,
        {"x": {1, 2}},
        {Rude.__name__: object()},
        b"\xff\x00",
        10**5000,
        float("nan"),
        {None: 1, 2: 3, b"x": 4},
        {(1, 2): 3},
    ):
        check(SANITIZER.payload(value))
    check(SANITIZER.payload({"when": datetime.datetime.now(), "id": uuid.uuid4(), "n": decimal.Decimal("1.50")}))


def hostile() -> dict[str, bytes]:
    return {
        "depth of 100,000": b"[" * 100_000 + b"]" * 100_000,
        "depth of 100,000, not closed": b'{"a":' * 100_000,
        "a million members": json.dumps({f"k{i}": i for i in range(1_000_000)}).encode(),
        "a million elements": b"[" + b"1," * 999_999 + b"1]",
        "a string of 10 MB": json.dumps({"a": "lorem ipsum " * 900_000}).encode(),
        "10 MB of base64": json.dumps({"a": "QUJD" * 2_500_000}).encode(),
        "10 MB of passwords": b"password=hunter2 " * 600_000,
        "10 MB of brackets": b"[{" * 5_000_000,
        "10 MB of quotes": b'"' * 10_000_000,
        "10 MB of backslashes": b'{"a":"' + b"\\\\" * 5_000_000 + b'"}',
        "an integer of 5,000 digits": b'{"a":' + b"9" * 5_000 + b"}",
        "an integer of 5,000,000 digits": b'{"a":' + b"9" * 5_000_000 + b"}",
        "a name of 1 MB": json.dumps({"x" * 1_000_000: 1}).encode(),
        "invalid UTF-8": b'{"password":"x\xff","b":"\xc3\x28"}' * 100,
        "UTF-16": json.dumps({"password": "hunter2"}).encode("utf-16"),
        "an event stream of 10 MB": b'data: {"password":"x"}\n\n' * 400_000,
        "escapes": b'{"a":"' + b"\\ud800\\u0000" * 500_000 + b'"}',
    }


def test_hostile_bodies_are_kept_in_bounded_time_and_memory():
    for name, raw in hostile().items():
        started = time.process_time()
        payload = SANITIZER.payload(raw=raw)
        spent = time.process_time() - started
        check(payload)
        assert payload.json, name
        assert payload.size == len(raw), name
        assert spent < 8, (name, spent)
        assert SANITIZER.quick(MISSING, raw) is None or len(raw) < 16_385


def test_nesting_in_values_needs_no_stack():
    deep: object = "x"
    for _ in range(100_000):
        deep = [deep]
    check(SANITIZER.payload(deep))
    deep = {"password": "x"}
    for _ in range(100_000):
        deep = {"a": deep}
    check(SANITIZER.payload(deep))


def test_the_depth_a_message_may_have_is_kept_whole():
    value: object = {"password": "hunter2"}
    for _ in range(120):
        value = {"a": value}
    payload = SANITIZER.payload(raw=orjson.dumps(value))
    assert "[NESTED]" not in payload.json and "hunter2" not in payload.json and payload.redactions == 1


def test_numbers_keep_their_digits_or_their_text():
    raw = (
        b'{"a":123456789012345678901234567890,"b":1e999,"c":NaN,"d":-Infinity,"e":0.1,"f":18446744073709551615,"g":-0}'
    )
    kept = SANITIZER.payload(raw=raw).json
    assert "123456789012345678901234567890" in kept
    assert json.loads(kept) == {
        "a": 123456789012345678901234567890,
        "b": "1e999",
        "c": "NaN",
        "d": "-Infinity",
        "e": 0.1,
        "f": 18446744073709551615,
        "g": 0,
    }
    assert SANITIZER.payload(raw=b'{"a":' + b"9" * 5_000 + b"}").json == '{"a":"[NUMBER:5000 digits]"}'
    assert json.loads(SANITIZER.payload({"x": float("nan"), "y": None, "z": float("inf")}).json) == {
        "x": "nan",
        "y": None,
        "z": "inf",
    }


class TestTruncation:
    def test_a_payload_of_the_limit_is_kept_and_one_byte_more_is_not(self):
        for size, truncated in ((8_192, False), (8_193, True)):
            raw = b'{"a":"' + b"x y " * ((size - 8) // 4) + b"z" * ((size - 8) % 4) + b'"}'
            assert len(raw) == size
            payload = SANITIZER.payload(raw=raw)
            assert payload.truncated is truncated
            assert (json.loads(payload.json).get("_truncated") is True) is truncated

    def test_head_tail_bytes_and_digest(self):
        raw = json.dumps({"first": 1, "middle": ["some words"] * 5_000, "last": 2}).encode()
        kept = SANITIZER.payload(raw=raw)
        value = kept.value
        assert value["_head"].startswith('{"first":1') and value["_tail"].endswith('"last":2}')
        assert (value["_bytes"], value["_digest"]) == (len(raw), kept.digest) == (kept.size, SANITIZER.digest(raw))
        assert 6_100 < len(orjson.dumps(value["_head"])) - 2 <= 6_144
        assert 1_000 < len(orjson.dumps(value["_tail"])) - 2 <= 1_024

    @given(
        st.integers(0, 9_000),
        st.sampled_from(
            [
                "ghp_abcdEFGH1234567890abcdEFGH1234567890",
                "password=hunter2secret",
                '{"password":"hunter2secret"}',
                "mcps_live_AbCdEf123456_0123456789abcdef0123456789",
            ]
        ),
        st.booleans(),
    )
    def test_a_secret_across_the_cut_is_not_seen(self, before, secret, blanks):
        filler = "x " if blanks else "-"
        raw = json.dumps({"a": (filler * 9_000)[:before] + " " + secret + " " + filler * 9_000}).encode()
        for kept in (
            SANITIZER.payload(raw=raw).json,
            SANITIZER.payload(
                raw=json.dumps({"z": filler * 9_000 + " " + secret + " " + (filler * 9_000)[:before]}).encode()
            ).json,
        ):
            assert "hunter2" not in kept and "EFGH1234567890" not in kept and "_0123456789abcdef" not in kept

    def test_secrets_in_every_member_of_a_long_payload(self):
        raw = json.dumps([{"name": "X-Api-Key", "value": f"v{i}secret", "n": i} for i in range(3_000)]).encode()
        payload = SANITIZER.payload(raw=raw)
        assert "secret" not in payload.json.replace("secret:", "")

    def test_an_image_is_kept_as_type_size_and_digest(self):
        raw = json.dumps(
            {
                "result": {
                    "content": [
                        {"type": "image", "mimeType": "image/png", "data": "iVBORw0K" * 20_000},
                        {"type": "text", "text": "done"},
                    ]
                }
            }
        ).encode()
        payload = SANITIZER.payload(raw=raw)
        image, text = payload.value["result"]["content"]
        assert image["data"] == f"[BLOB:image/png:{6 * 20_000}:{SANITIZER.fingerprint('iVBORw0K' * 20_000)}]"
        assert text["text"] == "done" and not payload.truncated


class TestLevels:
    RAW = b'{"a":"some text"}'

    @pytest.mark.parametrize(
        ("level", "request_kept", "response_kept"),
        [
            ("full", True, True),
            ("request", True, False),
            ("digest", False, False),
            ("none", False, False),
            ("unheard-of", True, True),
        ],
    )
    def test_what_is_not_kept_is_still_counted_and_digested(self, level, request_kept, response_kept):
        for side, kept in (("request", request_kept), ("response", response_kept)):
            for payload in (
                SANITIZER.payload(raw=self.RAW, level=level, side=side),
                SANITIZER.payload({"a": "some text"}, level=level, side=side),
            ):
                assert (payload.json is not None) is kept
                assert payload.size == len(self.RAW) and payload.digest == SANITIZER.digest(self.RAW)

    def test_nothing_is_nothing(self):
        assert SANITIZER.payload() == SANITIZER.payload(MISSING) == Payload(None, 0, "")
        assert SANITIZER.payload(raw=b"").json is None


class TestNotJson:
    def test_only_its_beginning_is_kept(self):
        payload = SANITIZER.payload(raw=b"plain words " * 1_000)
        assert payload.value["_not_json"] is True
        assert len(payload.value["_text"].encode()) <= 512
        assert payload.truncated

    def test_bytes_are_not(self):
        payload = SANITIZER.payload(raw=bytes(range(256)) * 4)
        assert payload.value == {"_not_json": True, "_bytes": 1024, "_binary": True}

    def test_an_event_stream_is_read_as_one(self):
        payload = SANITIZER.payload(
            raw=b'event: message\ndata: {"password":\ndata: "hunter2"}\n\ndata: {"ok":1}\n\n',
            content_type="text/event-stream",
        )
        assert payload.value[1] == {"ok": 1} and "hunter2" not in payload.json and payload.redactions == 1

    @pytest.mark.parametrize("position", list(secrets.POSITIONS))
    def test_the_corpus_cut_at_every_byte(self, position):
        """A secret that was sent whole or in great part is not seen, wherever the sending ended."""
        r = secrets.R(99)
        for form in secrets.FORMATS[:: 6 if position != "broken JSON" else 3]:
            if form.name in ("password", "password-symbols") and position == "prose":
                continue
            secret = form.make(r)
            made = secrets.POSITIONS[position](r, secret, form.names[0])
            wanted = made.secrets if isinstance(made, secrets.Case) else (secret,)
            made = made.payload if isinstance(made, secrets.Case) else made
            raw = made if isinstance(made, bytes) else json.dumps(made).encode()
            for end in range(1, len(raw) + 1, 1 if len(raw) < 200 else 7):
                shown = SANITIZER.payload(raw=raw[:end]).json
                for secret in wanted:
                    assert not _seen(shown, secret), (form.name, raw[:end], shown)


def _seen(shown, secret):
    """Whether more of a secret can be read than its beginning, which alone gives nothing away."""
    return leaks(shown, secret) if len(secret) >= 16 and "\n" not in secret else secret in shown


@given(VALUES)
def test_what_was_sanitised_stays_as_it_is(value):
    payload = SANITIZER.payload(value)
    assert SANITIZER.restored(payload.json) == payload.json


# Finds of fuzzing over the mutated corpus, kept.
@pytest.mark.parametrize(
    "raw",
    [
        b'{"env": [{"name": "L_pass\\": ANG", "value": "C"}]}',
        b'{"name": "password\\u0000_reset", "value": "enabled"}',
        b'{"description": "R0lGODlhFcGkzrSzkl2PKuTwzIzL1jLZBTe5 ' + b"w o r d " * 54 + b'IJjWBxJrgV5ZpqextqEcQb9LmMP5rTiStiMNWa86aCbS',
        json.dumps({"a": "x " * 3_052 + "IJjWBxJrgV5ZpqextqEcQb9LmMP5rTiStiMNWa86aCbSTrLdZo/y4NgiKJleMV" + " y" * 4_000}).encode(),
        b'{"data": "QXV0aG9yaXphdGlvbjogQmVhcmVyIC0tLS0tQkVHSU4gRUMgUF\nJJVkFURSBLRVktLS0tLQ',
    ],
)  # fmt: skip
def test_looking_twice_finds_no_more(raw):
    payload = SANITIZER.payload(raw=raw)
    assert SANITIZER.restored(payload.json) == payload.json


def test_a_name_is_judged_as_it_reads():
    for name in ("pass\x00word", "pass\u200bword", "api\u2060Key", "to\ud800ken"):
        assert "zq9" not in SANITIZER.payload({name: "zq9"}).json
        assert "zq9" not in SANITIZER.payload({"name": name, "value": "zq9"}).json


@pytest.mark.slow
def test_the_mutated_corpus():
    """Inputs near to secrets: the corpus with bytes taken out, put in, changed and joined."""
    r = random.Random(2026)
    pool = [c.payload if isinstance(c.payload, bytes) else json.dumps(c.payload).encode() for c in secrets.cases(7, 1)]
    bits = [
        b'"',
        b"\\",
        b"{",
        b"}",
        b",",
        b":",
        b"%22",
        b'\\"',
        b"[REDACTED:token:01234567]",
        "\u202e".encode(),
        b"\\u0000",
        b"=",
        b"&",
        b" is ",
        b"\n",
        b"data: ",
    ]
    for _ in range(4_000):
        raw = bytearray(r.choice(pool))
        for _ in range(r.randint(1, 4)):
            at = r.randrange(len(raw) + 1)
            other = r.choice(pool)
            start = r.randrange(len(other))
            raw[at : at + r.choice([0, 0, 0, 3, 8])] = r.choice(
                [b"", r.choice(bits), r.randbytes(1), other[start : start + r.randint(1, 60)]]
            )
        payload = SANITIZER._raw(bytes(raw), bool(raw), "")
        check(payload)
        if payload.json:
            assert SANITIZER.restored(payload.json) == payload.json, bytes(raw)


def test_what_was_stored_under_older_rules_is_looked_through_again():
    stored = SANITIZER.payload({"badge": "B-1234", "note": "a\u202eb"})
    assert "B-1234" in stored.json
    newer = Sanitizer(b"k" * 32, RedactionRuleSet(names=("badge",)))
    assert "B-1234" not in newer.restored(stored.json)
    assert json.loads(newer.restored(stored.json))["note"] == "a\\u{202E}b"
    assert json.loads(SANITIZER.restored('{"password":"hunter2"}'))["password"].startswith("[REDACTED:")
    assert SANITIZER.restored("no json, password=hunter2").count("hunter2") == 0


class TestText:
    @given(TEXTS, st.integers(48, 600))
    def test_any_text(self, text, limit):
        shown = SANITIZER.text(text, limit)
        assert len(shown.encode()) <= limit
        assert not escapes._LINE.search(shown.replace("\\u{", ""))

    @given(ODD_OBJECTS)
    def test_anything(self, value):
        SANITIZER.text(value)

    def test_plain_names_stay_as_they_are(self):
        for name in (
            "search_documents",
            "get-secret",
            "rotate_api_key",
            "reset_password",
            "a" * 512,
            "größe",
            "文件",
            "x.y/z",
            "C:\\u",
        ):
            assert SANITIZER.text(name, 512) == name

    @pytest.mark.parametrize(
        "text",
        [
            "\x00" * 96 + '"a": "b", "secret": ' + "word " * 9,
            '{"vars": [{"key": "mcps_CLO' + "\x00" * 270,
            "api_key=" + "a" * 600,
            "name " + "ä" * 300,
            'x "password": ' + "é " * 300,
            "[…7:01234567]",
            "password=[…7:01234567]",
        ],
    )
    def test_what_was_cut_stays_as_it_is(self, text):
        once = SANITIZER.text(text)
        assert SANITIZER.text(once, again=True) == once
        assert len(once.encode()) <= 512

    def test_two_long_names_stay_two(self):
        a, b = SANITIZER.text("a" * 10_000, 512), SANITIZER.text("a" * 9_999 + "b", 512)
        assert a != b and "10000" in a and len(a.encode()) <= 512

    def test_secrets_in_names_and_addresses(self):
        assert "hunter2" not in SANITIZER.text("https://u:hunter2@h/x", 512)
        assert "hunter2" not in SANITIZER.text("x" * 500 + " password=hunter2", 512)
        assert "ABCDEFGH" not in SANITIZER.text("y" * 4_600 + " ghp_ABCDEFGH12345678ABCDEFGH12345678", 600)

    def test_lines_cannot_be_forged(self):
        assert SANITIZER.text("a\nb\r\x1b[31m\x00\u2028c", 99) == "a\\u{A}b\\u{D}\\u{1B}[31m\\u{0}\\u{2028}c"

    def test_a_text_that_had_nothing_is_remembered_and_one_with_a_secret_is_not(self):
        fresh = Sanitizer(b"k" * 32)
        fresh.text("plain_name")
        fresh.text("token=abc123def456")
        assert fresh.clean - {""} == {"plain_name"}
        for i in range(9_000):
            fresh.text(f"name {i}")
        assert len(fresh.clean) <= 8_192


class TestEscapes:
    @given(st.text(st.characters(codec=None, exclude_categories=()), max_size=30))
    def test_what_is_escaped_can_only_mean_one_thing(self, text):
        assert escapes.unescape(escapes.escape(text)) == text
        assert escapes.unescape(escapes.escape_line(text)) == text

    def test_text_that_looks_like_an_escape_is_told_apart(self):
        assert escapes.escape("\u202e") == "\\u{202E}"
        assert escapes.escape("\\u{202E}") == "\\u{5C}u{202E}"
        assert escapes.escape("\\u202e C:\\users") == "\\u202e C:\\users"

    def test_both_engines_read_the_table_alike(self):
        for point in range(sys.maxunicode + 1):
            if not 0xD800 <= point <= 0xDFFF:
                assert escapes.hides(chr(point).encode()) is (escapes._AGAIN.search(chr(point)) is not None), hex(point)
        assert escapes.hides(b"x\\u{2}") and not escapes.hides(b"x\\u0002")

    def test_the_table_covers_what_unicode_calls_invisible(self):
        for point in range(sys.maxunicode + 1):
            if unicodedata.category(chr(point)) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
                assert (escapes._AGAIN.search(chr(point)) is not None) is (point not in (9, 10, 13)), hex(point)


def test_warming_up_compiles_what_the_first_payloads_need(monkeypatch):
    matching._each.cache_clear()
    warm_up.warm()
    assert matching._each.cache_info().currsize == 1
    monkeypatch.setattr(warm_up, "_CALL", object())
    warm_up.warm()  # what cannot be is logged, not raised


@pytest.mark.django_db
def test_postgresql_takes_every_answer():
    @given(st.one_of(bodies().map(lambda raw: SANITIZER.payload(raw=raw)), VALUES.map(SANITIZER.payload)))
    def run(payload):
        if payload.json is not None:
            with connection.cursor() as cursor:
                cursor.execute("SELECT %s::json, %s::jsonb, %s::json #>> '{}'", [payload.json] * 3)
                assert cursor.fetchone() is not None

    try:
        run()
    except psycopg.Error as error:  # pragma: no cover - the failure itself
        pytest.fail(str(error))
