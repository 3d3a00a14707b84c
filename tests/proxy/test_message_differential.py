"""What was read is what every other parser reads: mutated bodies against Node's parser, and against one that folds cases.

Python's own parser is the gateway's neighbour, Node's is the one of most servers, and Go's matches members in any case.
"""

from __future__ import annotations

import base64
import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from proxy.message import Message, Refused, read
from tests.support.clients import node

BODIES = 100_000
FIELDS = ("jsonrpc", "id", "method")
PARAMS = ("name", "uri", "arguments", "ref", "_meta")

SEEDS = [
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"public.echo","arguments":{"text":"hi","n":1.5}}}',
    b'{"jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": {"arguments": {"id": [1, {"name": "x"}]}, "name": "x"}}',
    b'{"params":{"uri":"file:///a","_meta":{"progressToken":7}},"method":"resources/read","id":-3,"jsonrpc":"2.0"}',
    b'{"jsonrpc":"2.0","id":"\\u0031","method":"prompts/get","params":{"name":"p\\u00e9","arguments":{"a":"\\ud83d\\ude00"}}}',
    b'{"jsonrpc":"2.0","id":2,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"p"}}}',
]
PIECES = [
    *[b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b" ", b"\n", b"\t", b"\x0b", b"\xa0", b"\x00", b"/*x*/", b"'"],
    *[b"\xef\xbb\xbf", b"\xff", b"\xc3\xa9", b"\xe2\x80\xa8", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"\\u003a", b"\\u0022"],
    *[b"NaN", b"Infinity", b"null", b"true", b"0", b"-", b"1e9", b"1E400", b".5", b"01", b"9007199254740993", b"1" * 25, b"+1"],
    *[b'"name":"danger",', b'"Name":"danger",', b'"n\\u0061me":"danger",', b'"NAME":"danger",', b'"name\\u0000":"danger",'],
    *[b'"method":"tools/call",', b'"Method":"x",', b'"id":9,', b'"ID":9,', b'"params":{},', b'"Params":{"name":"danger"},'],
    *[b'"argument\xc5\xbf":{},', b'"arguments":{"x":1},', b'"uri":"danger",', b'"_meta":{},', b'"__proto__":{"name":"danger"},'],
    *[b'"constructor":1,', b'"toString":"x",', b'"text":"danger",', b'"n":2,', b'"":1,', b'"":2,', b'"result":1,'],
]  # fmt: skip

NODE = r"""
const lines = require("fs").readFileSync(0, "latin1").split("\n");
const out = [];
for (const line of lines) {
  if (!line) continue;
  const text = new TextDecoder("utf-8", {fatal: true, ignoreBOM: true}).decode(Buffer.from(line, "base64"));
  const v = JSON.parse(text), p = v.params ?? {};
  const own = (o, k) => Object.hasOwn(o, k) ? o[k] : null;
  const seen = ["jsonrpc", "id", "method"].map(k => own(v, k))
    .concat(["name", "uri", "arguments", "ref", "_meta"].map(k => own(p, k)));
  out.push(JSON.stringify(seen));
}
console.log(out.join("\n"));
"""


def mutated(rng: random.Random) -> bytes:
    body = rng.choice(SEEDS)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        what = rng.random()
        at = rng.randrange(len(body) + 1)
        if what < 0.45:
            # where a member may stand, so that many mutants stay JSON
            places = [n + 1 for n, byte in enumerate(body) if byte in b"{,"]
            at = rng.choice(places) if places and rng.random() < 0.8 else at
            body = body[:at] + rng.choice(PIECES) + body[at:]
        elif what < 0.6:
            body = body[:at] + body[at + rng.randrange(1, 4) :]
        elif what < 0.75:
            end = min(len(body), at + rng.randrange(1, 30))
            body = body[:end] + body[at:end] + body[end:]
        elif what < 0.9:
            piece = body[at : at + 1]
            if piece.isalpha():
                body = (
                    body[:at]
                    + rng.choice((piece.swapcase(), b"\\u%04x" % piece[0], b"\\u%04X" % piece[0]))
                    + body[at + 1 :]
                )
        else:
            body = body[:at] + bytes([rng.randrange(256)]) + body[at + 1 :]
    return body


@pytest.fixture(scope="module")
def accepted() -> list[tuple[bytes, Message]]:
    rng = random.Random(20260728)
    found = []
    for _ in range(BODIES):
        body = mutated(rng)
        try:
            found.append((body, read(body)))
        except Refused:
            continue
    assert BODIES // 10 < len(found) < BODIES * 9 // 10  # a table that refuses all, or nothing, proves nothing
    return found


def seen(message: Message) -> list[Any]:
    params = message.value.get("params") or {}
    return [message.value.get(field) for field in FIELDS] + [params.get(field) for field in PARAMS]


def leveled(value: Any) -> Any:
    """Numbers as a double has them, the one thing in which a careful and a careless reader may differ."""
    if isinstance(value, dict):
        return {name: leveled(member) for name, member in value.items()}
    if isinstance(value, list):
        return [leveled(member) for member in value]
    return value if isinstance(value, bool | str) or value is None else float(value)


def test_node_reads_the_same(accepted: list[tuple[bytes, Message]], tmp_path: Path) -> None:
    lines = b"\n".join(base64.b64encode(body) for body, _ in accepted)
    done = subprocess.run([str(node()), "-e", NODE], input=lines, capture_output=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr.decode()[:2000]
    answers = done.stdout.decode("utf-8", "surrogatepass").removesuffix("\n").split("\n")
    assert len(answers) == len(accepted)
    for (body, message), answer in zip(accepted, answers, strict=True):
        assert leveled(json.loads(answer)) == leveled(seen(message)), body


def go(pairs: Any, field: str) -> Any:
    """The last member whose name folds to the field's, as encoding/json fills a struct."""
    value = None
    for name, member in pairs if isinstance(pairs, list) else ():
        if name.replace("\u017f", "s").replace("\u212a", "k").lower() == field:
            value = member
    return value


def plain(value: Any) -> Any:
    if isinstance(value, Object):
        return {name: plain(member) for name, member in value}
    return [plain(member) for member in value] if isinstance(value, list) else value


class Object(list[tuple[str, Any]]):
    """An object with all its members."""


def test_a_parser_that_folds_cases_reads_the_same(accepted: list[tuple[bytes, Message]]) -> None:
    for body, message in accepted:
        value = json.loads(body, object_pairs_hook=Object)
        params = go(value, "params")
        found = [go(value, field) for field in FIELDS] + [go(params, field) for field in PARAMS]
        assert leveled(plain(found)) == leveled(seen(message)), body


def test_the_id_stands_in_the_body(accepted: list[tuple[bytes, Message]]) -> None:
    for body, message in accepted:
        if message.id_json is not None:
            assert message.id_json in body
            assert json.loads(message.id_json) == message.id
