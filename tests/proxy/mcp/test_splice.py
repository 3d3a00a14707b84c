from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from proxy.mcp.splice import find, one_line, replace

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=6) | st.sampled_from(["id", "_meta"]), inner, max_size=4)
    ),
    max_leaves=20,
)
PATHS = [("id",), ("method",), ("params", "_meta", "progressToken"), ("params", "requestId"), ("absent",)]


def at(value, path):
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return None
        value = value[name]
    return (value,)


@given(
    rest=st.dictionaries(st.text(max_size=6), JSON, max_size=4),
    identifier=JSON,
    token=JSON,
    request=JSON,
    indent=st.sampled_from([None, 0, 2]),
    ascii_only=st.booleans(),
    order=st.randoms(),
)
def test_values_are_found_wherever_they_stand_and_nothing_else_moves(
    rest, identifier, token, request, indent, ascii_only, order
):
    meta = {**rest, "progressToken": token}
    params = {**rest, "_meta": meta, "requestId": request}
    value = {**rest, "id": identifier, "params": params, "method": "m"}
    items = list(value.items())
    order.shuffle(items)
    text = json.dumps(dict(items), indent=indent, ensure_ascii=ascii_only)
    raw = text.encode("utf-8", "surrogatepass")
    found = find(raw, *PATHS)
    for path in PATHS:
        expected = at(dict(items), path)
        assert (path in found) == (expected is not None)
        if expected is not None:
            start, end = found[path]
            assert json.loads(raw[start:end].decode("utf-8", "surrogatepass")) == expected[0]
            assert raw[start:end].strip() == raw[start:end]
    start, end = found[("id",)]
    changed = replace(raw, {found[("id",)]: b'"x-1"'})
    assert changed == raw[:start] + b'"x-1"' + raw[end:]
    line = one_line(raw)
    assert b"\n" not in line
    assert json.loads(line.decode("utf-8", "surrogatepass")) == dict(items)


def test_what_is_no_object_has_nothing():
    for raw in (b"", b"[]", b'"id"', b"1", b"{", b'{"id"', b'{"id":', b'{"id":1', b'{"a":{"b":[', b"nonsense"):
        found = find(raw, ("a", "b"), ("zz",))
        assert ("zz",) not in found
