"""What was read is what every other parser reads: mutated bodies against Node's parser, Go's, and one that folds cases.

Python's own parser is the gateway's neighbour, Node's is the one of most servers, and Go's matches members in any case.
`python -m tests.support.differential` sends as many through a running gateway to a server on each.
"""

from __future__ import annotations

import base64
import json
import random
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from proxy.mcp.message import Message, Refused, read
from tests.support.clients import go_server, node
from tests.support.mutants import mutated

BODIES = 100_000
FIELDS = ("jsonrpc", "id", "method")
PARAMS = ("name", "uri", "arguments", "ref", "_meta")

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


def replaced(value: Any) -> Any:
    """Lone surrogates as Go reads them."""
    if isinstance(value, dict):
        return {replaced(name): replaced(member) for name, member in value.items()}
    if isinstance(value, list):
        return [replaced(member) for member in value]
    return re.sub("[\ud800-\udfff]", "\ufffd", value) if isinstance(value, str) else value


def test_go_reads_the_same(accepted: list[tuple[bytes, Message]]) -> None:
    lines = b"\n".join(base64.b64encode(body) for body, _ in accepted)
    done = subprocess.run([go_server(), "-"], input=lines, capture_output=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr.decode()[:2000]
    answers = done.stdout.splitlines()
    assert len(answers) == len(accepted)
    for (body, message), answer in zip(accepted, answers, strict=True):
        assert leveled(json.loads(answer)) == leveled(replaced(seen(message))), body


def folded(pairs: Any, field: str) -> Any:
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
        params = folded(value, "params")
        found = [folded(value, field) for field in FIELDS] + [folded(params, field) for field in PARAMS]
        assert leveled(plain(found)) == leveled(seen(message)), body


def test_the_id_stands_in_the_body(accepted: list[tuple[bytes, Message]]) -> None:
    for body, message in accepted:
        if message.id_json is not None:
            assert message.id_json in body
            assert json.loads(message.id_json) == message.id
