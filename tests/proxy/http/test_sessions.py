from __future__ import annotations

import pytest

from proxy.http.sessions import SessionSealer

SEALER = SessionSealer("a secret of this test")


def test_what_was_sealed_opens_with_the_same_key_and_upstream():
    sealed = SEALER.seal(b"abc-123", key_id="k1", upstream="crm")
    assert sealed is not None
    assert SEALER.open(sealed, key_id="k1", upstream="crm") == b"abc-123"


@pytest.mark.parametrize(
    ("key", "upstream", "purpose"), [("k2", "crm", "session"), ("k1", "other", "session"), ("k1", "crm", "endpoint")]
)
def test_anything_else_opens_to_nothing(key, upstream, purpose):
    sealed = SEALER.seal(b"abc-123", key_id="k1", upstream="crm")
    assert SEALER.open(sealed, key_id=key, upstream=upstream, purpose=purpose) is None


def test_another_installation_cannot_open_it():
    sealed = SEALER.seal(b"abc", key_id="k1", upstream="crm")
    assert SessionSealer("another secret").open(sealed, key_id="k1", upstream="crm") is None


def test_an_altered_id_opens_to_nothing_at_any_place():
    sealed = SEALER.seal(b"abc-123", key_id="k1", upstream="crm")
    for place in range(len(sealed)):
        other = "A" if sealed[place] != "A" else "B"
        altered = sealed[:place] + other + sealed[place + 1 :]
        assert SEALER.open(altered, key_id="k1", upstream="crm") is None, place


@pytest.mark.parametrize("presented", ["", ".", "abc", "abc.def", "a" * 5000, "ü.x", "..", "abc." + "x" * 24 + "\n"])
def test_what_was_never_sealed_opens_to_nothing(presented):
    assert SEALER.open(presented, key_id="k1", upstream="crm") is None


@pytest.mark.parametrize("value", [b"", b"with space", b"line\n", b"\xff", b"x" * 1025])
def test_only_visible_ascii_is_sealed(value):
    assert SEALER.seal(value, key_id="k1", upstream="crm") is None


def test_what_never_opens_is_named_all_the_same_and_never_by_itself():
    sealed = SEALER.seal(b"abc-123", key_id="k1", upstream="crm").encode()
    assert SEALER.claimed(sealed) == b"abc-123"
    for odd in (b"x", b"0" * 32, b"\xff\x00", b"A." + b"B" * 24, b"." + b"B" * 24, b"x" * 5000):
        assert SEALER.claimed(odd)
        assert odd.decode("latin-1") not in SEALER.reference(SEALER.claimed(odd)) or len(odd) < 3
    assert SEALER.claimed(b"") == b""
