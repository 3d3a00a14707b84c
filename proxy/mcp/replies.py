"""What an upstream says, read so that no other reader can read it otherwise: bytes in, one message out, or Unreadable.

Whatever JSON leaves open (members that come twice, variants of reserved ones, something behind the value, text that is not
UTF-8) is refused, and so is what is no message of the protocol: batches, a result that is no object, a message that is both
request and response. Unlike in what clients say, numbers are nobody's to decide on here, so any are taken.

    read(data) -> Reply          raises Unreadable; pure, so that large data may be read in a thread
    spelled(id) -> bytes         what an id says, alike for ids that some client could take for one
    crowded(data) -> bool        whether it holds more values than anybody should take apart in memory
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any, Final, Literal, NamedTuple, NoReturn

import orjson

from proxy.mcp.strict_json import PROTOTYPE, SURROGATE, Unreadable
from proxy.mcp.targets import ENVELOPE, refuse_variants

__all__ = ["LARGE_BYTES", "MOST_VALUES", "Reply", "Unreadable", "crowded", "read", "same_id", "spelled"]

#: larger data is read in a thread
LARGE_BYTES: Final = 64 * 1024
#: a longer JSON-RPC id is known by its digest
_WRITTEN_OUT: Final = 100
#: commas and opening brackets outside strings: parsing holds the interpreter, for some 50 ms with so many
MOST_VALUES: Final = 250_000

_SEPARATORS: Final = (b",", b"[", b"{")
_NO_MARKS: Final = bytes(set(range(256)) - set(b'",[{'))
_SLICE: Final = 1024**2
_SPACE: Final = b" \t\r\n"


class Reply(NamedTuple):
    """One message of an upstream, which every conforming reader reads alike."""

    kind: Literal["response", "request", "notification"]
    id: str | int | None
    method: str  # "" for a response
    value: dict[str, Any]
    exact: bool  # whether `value` is what a strict parser makes of the bytes (half surrogate pairs are nothing to one)
    result: dict[str, Any] | None = None  # of a response that is no error
    compact: bytes = b""  # the bytes without their white space, where that says the same to the letter


def _not(message: str, reason: str = "invalid_request") -> Unreadable:
    return Unreadable(reason, message)


# --- JSON -------------------------------------------------------------------------------------------------------------


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _not("An object in the message has the same member twice.", "duplicate_member")
    if any(SURROGATE.search(name) is not None for name in members):
        raise _not("A member's name in the message has half a surrogate pair.", "lone_surrogate")
    return members


def _constant(text: str) -> NoReturn:
    raise Unreadable("not_json", f"The message is not JSON: {text} is not a value.")


_SLOW = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_constant)


def _slow(data: bytes) -> Any:
    """Read what the fast reader does not take, or would not settle: half surrogate pairs, huge numbers, escaped names."""
    try:
        return _SLOW.decode(data.decode())
    except UnicodeDecodeError:
        raise Unreadable("not_utf8", "The message is not UTF-8.") from None
    except RecursionError:
        raise _not("The message nests too deep.", "too_deep") from None
    except ValueError as error:
        raise Unreadable("not_json", "The message is not JSON.") from error


def _parse(data: bytes) -> tuple[Any, bool, bytes]:
    """Give the value, whether it is exactly what was written, and the compact text if that is; how duplicates are found stands in strict_json."""
    try:
        value = orjson.loads(data)
    except ValueError:
        return _slow(data), False, b""
    try:
        again = orjson.dumps(value)
    except TypeError:
        raise _not("The message nests too deep.", "too_deep") from None
    if again == data or again.translate(None, _SPACE) == data.translate(None, _SPACE):
        return value, True, again
    if again.count(b":") != data.count(b":") or b"\\u003a" in data or b"\\u003A" in data:
        _slow(data)
    return value, True, b""


def crowded(data: bytes) -> bool:
    """Whether data holds more values than MOST_VALUES; linear, and the interpreter is never held for long."""
    if sum(data.count(mark) for mark in _SEPARATORS) <= MOST_VALUES:
        return False
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = b"".join(data[at : at + _SLICE].translate(None, _NO_MARKS) for at in range(0, len(data), _SLICE))
    if marks.count(b'"') > 4 * (MOST_VALUES + 1):  # so many strings have more separators between them, or are no JSON
        return True
    return sum(map(len, marks.split(b'"')[::2])) > MOST_VALUES


# --- messages ---------------------------------------------------------------------------------------------------------


def read(data: bytes) -> Reply:
    """Read one message strictly; raises Unreadable."""
    if len(data) > LARGE_BYTES and crowded(data):
        raise _not(f"The message holds more than {MOST_VALUES} values.", "too_many_values")
    value, exact, compact = _parse(data)
    if type(value) is not dict:
        if type(value) is list:
            raise _not("It is a batch, which has no place in an answer.", "batch")
        raise _not("It is no JSON object.")
    if not value.keys() <= ENVELOPE:
        refuse_variants(value, ENVELOPE)
    if PROTOTYPE in value:
        raise _not(f"It has the member {PROTOTYPE!r}.", "reserved_member")
    if value.get("jsonrpc") != "2.0":
        raise _not('jsonrpc must be "2.0".')
    rpc_id = value.get("id")
    if type(rpc_id) not in (str, int) and (rpc_id is not None or ("id" in value and "method" in value)):
        raise _not("id must be a string or an integer.")
    if "method" in value:
        return _asks(value, rpc_id, exact)
    if ("result" in value) == ("error" in value):
        raise _not("It is neither a request nor a response.")
    if "result" in value:
        if rpc_id is None:
            raise _not("A result needs the id of its request.")
        if type(value["result"]) is not dict:
            raise _not("A result must be an object.")
    elif type(value["error"]) is not dict:
        raise _not("An error must be an object.")
    return Reply("response", rpc_id, "", value, exact, value.get("result"), compact)


def _asks(value: dict[str, Any], rpc_id: str | int | None, exact: bool) -> Reply:
    if "result" in value or "error" in value:
        raise _not("It is both a request and a response.")
    method = value["method"]
    if type(method) is not str or not method or SURROGATE.search(method) is not None:
        raise _not("method must be a string that is not empty.")
    if not isinstance(value.get("params", {}), dict | list | None):
        raise _not("params must be an object or a list when present.")
    return Reply("notification" if rpc_id is None else "request", rpc_id, method, value, exact)


def same_id(one: Any, other: Any) -> bool:
    """Whether some client could take two ids for one: clients are known to read "1" as 1."""
    if isinstance(one, bool) or isinstance(other, bool) or one is None or other is None:
        return False
    if isinstance(one, float) and one.is_integer():
        one = int(one)
    if isinstance(other, float) and other.is_integer():
        other = int(other)
    return str(one) == str(other)


def spelled(rpc_id: Any) -> bytes:
    """Write a JSON-RPC id so that what some client could take for the same is the same (see same_id)."""
    if isinstance(rpc_id, float) and rpc_id.is_integer():
        rpc_id = int(rpc_id)
    if isinstance(rpc_id, bool) or not isinstance(rpc_id, (str, int, float)):
        return b""
    text = str(rpc_id).encode("utf-8", "surrogatepass")
    return b"=" + text if len(text) <= _WRITTEN_OUT else b"#" + sha256(text).digest()
