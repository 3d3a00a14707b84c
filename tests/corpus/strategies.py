"""What hostile and ordinary payloads are drawn from, for the property tests."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

FRAGMENTS = st.sampled_from(
    [
        "password", "token", "api_key", "Authorization", "secret", "key", "name", "value", "author", "max_tokens", "=", ": ", ":", "&", "?", ",", " ", "\n", "\\n", '"', "'", "\\", "\\\\", '\\"',
        "{", "}", "[", "]", "hunter2", "x", "Bearer ", "Basic ", "dXNlcjpwYXNz", "eyJhbGciOiJIUzI1NiJ9.e30.abc", "ghp_abcdEFGH1234567890abcdEFGH1234567890", "AKIAABCDEFGH2345ABCD", "mcps_live_AbCdEf123456",
        "mcps_live_AbCdEf123456_0123456789", "https://", "u:p@", "example.com", "/", "%3D", "%20", "%", "\\u0070", "\\u{202E}", "\u202e", "\x00", "\x7f", "\ud800", "é", "пароль", "data: ", "\n\n", "--", "-p", "-u",
        "[REDACTED:token:01234567]", "[REDACTED:", "cGFzc3dvcmQ9aHVudGVyMg==", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", "<password>", "</password>", "is", "the", "1234", "0",
        "progressToken", "Ｐassword", "p_a_s_s_w_o_r_d", "pass\u200bword", "\u2028", "[BLOB:image/png:1:0]", "id", "null", "true", "sk-proj-Ab1", "curl", "mysql",
    ]
)  # fmt: skip
TEXTS = st.one_of(
    st.text(max_size=40),
    st.lists(FRAGMENTS, max_size=9).map("".join),
    st.text(st.characters(codec=None, categories=["Cs", "Cc", "Cf", "Ll"]), max_size=12),
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.integers(-(10**60), 10**60), st.floats(), TEXTS)
KEYS = st.one_of(FRAGMENTS, TEXTS)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.lists(inner, max_size=5), st.dictionaries(KEYS, inner, max_size=5))


VALUES = st.recursive(SCALARS, _containers, max_leaves=14)
ODD_OBJECTS = st.recursive(
    st.one_of(SCALARS, st.binary(max_size=30), st.builds(object), st.complex_numbers(), st.uuids(), st.datetimes(), st.decimals(), st.just(print)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.tuples(inner, inner), st.dictionaries(st.one_of(KEYS, st.integers(), st.none(), st.binary(max_size=4)), inner, max_size=4), st.frozensets(st.integers(), max_size=3)),
    max_leaves=10,
)  # fmt: skip


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Bytes as they come from a client: JSON, JSON cut or changed, or anything."""
    if draw(st.integers(0, 5)) == 0:
        return draw(st.binary(max_size=300))
    value = draw(VALUES)
    try:
        raw = json.dumps(value, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    except (ValueError, TypeError):
        raw = repr(value).encode("utf-8", "replace")
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(raw)))
        raw = draw(
            st.sampled_from(
                [raw[:at], raw[at:], raw[:at] + draw(st.binary(max_size=3)) + raw[at:], raw[:at] + raw[at + 1 :]]
            )
        )
    return raw
