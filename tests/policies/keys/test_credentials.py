"""Keys as strings, and what it takes to be let in."""

import hashlib
import hmac
import re
import statistics
import time
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.keys import credentials
from policies.keys.index import KeyRecord, KeyRing, KeySecretRecord

PEPPERS = {1: b"a" * 32, 2: b"b" * 32}
NOW = 1_800_000_000.0


def made(pepper=2, **more):
    """A key, its record and the whole string."""
    public_id = credentials.new_public_id()
    text = credentials.generate(public_id)
    digest = credentials.digest(PEPPERS[pepper], public_id, credentials.parse(text).secret)
    secrets = (KeySecretRecord(1, pepper, digest, None),)
    return text, KeyRecord(
        **{"id": uuid.uuid4(), "public_id": public_id, "name": "k", "role": "user", "secrets": secrets, **more}
    )


def ring(*records, **more):
    return KeyRing({record.public_id: record for record in records}, PEPPERS, **more)


def test_the_format_is_the_documented_one():
    keys = {credentials.generate(credentials.new_public_id()) for _ in range(200)}
    assert len(keys) == 200
    for key in keys:
        assert re.fullmatch(credentials.KEY_REGEX, key) and len(key) == credentials.KEY_LENGTH == 72
        assert credentials.parse(key).prefix == key[:22]
    assert "secret" not in repr(credentials.parse(key)) and key[23:40] not in repr(credentials.parse(key))


@given(st.integers(0, 71), st.sampled_from(credentials.ALPHABET))
def test_any_other_character_breaks_the_checksum(at, character):
    key = credentials.generate("A" * 12)
    changed = key[:at] + character + key[at + 1 :]
    assert (credentials.parse(changed) is None) == (changed != key)


@given(st.text(max_size=200))
def test_junk_is_no_key(text):
    assert credentials.parse(text) is None


@pytest.mark.parametrize(
    "change", [str.upper, str.lower, lambda k: k + "\n", lambda k: " " + k, lambda k: k[:-1], lambda k: k + "0"]
)
def test_a_key_has_one_spelling(change):
    assert credentials.parse(change(credentials.generate("aB3" * 4))) is None


def test_what_is_stored_is_an_hmac_under_the_pepper():
    expected = hmac.new(PEPPERS[1], b"PUBLIC_secret", hashlib.sha256).digest()
    assert credentials.digest(PEPPERS[1], "PUBLIC", "secret") == expected
    assert credentials.digest(PEPPERS[2], "PUBLIC", "secret") != expected


def test_a_good_key_is_let_in_and_its_use_is_noted():
    text, record = made()
    used = {}
    result = ring(record, used=used).authenticate(text, NOW, "10.0.0.1", "query")
    assert result.principal.key_id == record.id and result.failure == "" and result.generation == 1
    assert used == {record.public_id: (NOW, "10.0.0.1", True)}


@pytest.mark.parametrize(
    ("more", "failure"),
    [
        ({"revoked_at": NOW - 1}, "revoked_key"),
        ({"expires_at": NOW}, "expired_key"),
        ({"networks": ("192.168.0.0/16", "fd00::/8")}, "wrong_network"),
        ({"query_allowed": False}, "query_forbidden"),
        ({"role": "", "duty": "operator"}, "administrative_key"),
        ({"revoked_at": NOW - 1, "expires_at": NOW - 2, "networks": ("1.1.1.1/32",)}, "revoked_key"),
    ],
)
def test_why_a_right_secret_is_refused(more, failure):
    text, record = made(**more)
    used = {}
    keys = ring(record, used=used, fingerprint=lambda presented: "fp")
    result = keys.authenticate(text, NOW, "10.0.0.1", "query")
    assert (result.principal, result.failure, result.key) == (None, failure, record)
    assert failure == "administrative_key" or (used == {} and result.fingerprint == "fp")
    wrong = keys.authenticate(credentials.generate(record.public_id), NOW, "10.0.0.1", "query")
    assert (wrong.failure, wrong.key) == ("invalid_credential", None)  # the state of a key is told to its holder only


def test_administrative_and_agent_keys_do_not_cross():
    agent_text, agent = made()
    admin_text, admin = made(role="", duty="auditor")
    keys = ring(agent, admin)
    assert keys.authenticate_administrator(admin_text, NOW, None).key.duty == "auditor"
    assert keys.authenticate_administrator(agent_text, NOW, None).failure == "agent_key"
    assert keys.authenticate(admin_text, NOW, None).failure == "administrative_key"


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("10.9.9.9", True),
        ("::ffff:10.9.9.9", True),
        ("11.0.0.1", False),
        ("::1", False),
        (None, False),
        ("junk", False),
    ],
)
def test_networks(address, inside):
    text, record = made(networks=("10.0.0.0/8",))
    assert bool(ring(record).authenticate(text, NOW, address).principal) is inside


def test_rotation_with_overlap_and_old_peppers():
    old_text, record = made(pepper=1)
    new_text = credentials.generate(record.public_id)
    new = KeySecretRecord(
        2, 2, credentials.digest(PEPPERS[2], record.public_id, credentials.parse(new_text).secret), None
    )
    old = KeySecretRecord(1, 1, record.secrets[0].digest, NOW + 60)
    record = KeyRecord(id=record.id, public_id=record.public_id, name="k", role="user", secrets=(new, old))
    keys = ring(record)
    assert keys.authenticate(old_text, NOW + 59, None).generation == 1
    assert keys.authenticate(new_text, NOW, None).generation == 2
    assert keys.authenticate(old_text, NOW + 60, None).failure == "expired_key"
    without = KeyRing({record.public_id: record}, {2: PEPPERS[2]})
    assert without.authenticate(old_text, NOW, None).failure == "invalid_credential"
    assert without.authenticate(new_text, NOW, None).principal is not None
    assert without.without_pepper() == []
    assert KeyRing({record.public_id: record}, {3: b"c" * 32}).without_pepper() == [record.prefix]


def test_a_dummy_never_matches():
    text, record = made(pepper=1)
    zero = KeyRecord(
        id=record.id,
        public_id=record.public_id,
        name="k",
        role="user",
        secrets=(KeySecretRecord(1, 9, bytes(32), None),),
    )
    assert ring(zero).authenticate(text, NOW, None).failure == "invalid_credential"


def test_unknown_and_wrong_take_the_same_time():
    """Medians within a third; a hash that is left out would halve one of them."""
    text, record = made()
    keys = ring(record, fingerprint=lambda presented: "")
    presented = {
        "unknown": credentials.generate(credentials.new_public_id()),
        "wrong": credentials.generate(record.public_id),
    }
    taken = {name: [] for name in presented}
    for _ in range(3000):
        for name, key in presented.items():
            since = time.perf_counter_ns()
            keys.authenticate(key, NOW, None)
            taken[name].append(time.perf_counter_ns() - since)
    unknown, wrong = statistics.median(taken["unknown"]), statistics.median(taken["wrong"])
    assert abs(unknown - wrong) < max(unknown, wrong) / 3
    assert keys.authenticate(text, NOW, None).principal
