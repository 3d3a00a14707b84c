"""A search for inputs that are dear for their length: `python -m tests.corpus.costs [--seconds N] [--seed N] [--size N]`.

What the pipeline's pure parts read is made of repeats of what their patterns begin with: every form, name, keyword, bracket
and escape, drawn from the detectors' own tables, so that a new detector is searched from the day it is there. The dearest
found so far are changed and tried again. What is measured is processor time a byte, as the least of several runs, in units of
a machine that is told by a loop of the same sort; and whether twice as long an input is more than twice as dear.
"""

from __future__ import annotations

import argparse
import base64
import html
import json
import random
import re
import re._parser as patterns  # type: ignore[import-not-found]
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from urllib.parse import quote

from audit.events.event import Event
from audit.redaction import prefilter
from audit.redaction.detect import base64_text, heuristics, matching, pii
from audit.redaction.detect import patterns as forms
from audit.redaction.detect.context import lexical, prose, syntax, tables, values
from audit.redaction.rules import RedactionRuleSet
from audit.redaction.sanitizer import Sanitizer
from core.access.addresses import client_address
from policies.engine.conditions import compile_condition, normal_path
from policies.engine.glob import matcher
from policies.specs import ConditionSpec
from proxy.http.credentials import presented
from proxy.mcp.listing import Unfilterable, filter_result
from proxy.mcp.message import Refused, glance, peek, read
from proxy.mcp.replies import Unreadable
from proxy.mcp.replies import read as read_reply
from proxy.mcp.sse import SseReader, frame

MOST = 10.0  # microseconds a byte, on a machine on which `unit()` takes one
SIZE = 4_000
KEY = b"k" * 32
SANITIZER = Sanitizer(KEY)
OWN = Sanitizer(
    KEY, RedactionRuleSet(("colour",), (("order", "ORD-[0-9]{6}"),), frozenset(("email", "card", "iban", "phone")))
)
TABLES: tuple[ModuleType, ...] = (
    lexical,
    matching,
    pii,
    syntax,
    prefilter,
    prose,
    tables,
    values,
    heuristics,
    base64_text,
)


# -- what is measured


def _event(text: str) -> None:
    SANITIZER.clean.clear()
    fields = {name: text for name in ("user_agent", "method", "tool_name", "rpc_id", "protocol_version", "reason")}
    Event(sanitizer=SANITIZER, **fields, details={"refusal": text[:256]})


def _each(text: str) -> list[str]:
    return [text[at : at + 24] for at in range(0, len(text), 24)]


def _members(text: str) -> dict[str, str]:
    return {part + str(at): part for at, part in enumerate(_each(text))}


def _refusing(function: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def run(raw: bytes) -> Any:
        try:
            return function(raw)
        except (Refused, Unfilterable, Unreadable):
            return None

    return run


def _call(text: str) -> bytes:
    call = {
        "jsonrpc": "2.0",
        "id": text[:80],
        "method": "tools/call",
        "params": {"name": text, "arguments": {"a": text}},
    }
    return json.dumps(call).encode()


def _conditions() -> Callable[[str], Any]:
    specs = [
        ConditionSpec("matches", "(a|b)*c.*x{1,20}", "a"),
        ConditionSpec("under", "/srv/public", "a"),
    ]
    checks = [compile_condition(spec) for spec in specs]
    globs = [matcher(glob) for glob in ("*a*b*c*", "a*?b", "*x")]
    return lambda text: ([check({"a": text}) for check in checks], [glob(text) for glob in globs], normal_path(text))


def _kept(raw: bytes) -> Any:
    return SANITIZER.payload(raw=raw)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


#: for each reader what is made of a text, which is what its cost is measured by, and what reads it
READERS: dict[str, tuple[Callable[[str], Any], Callable[[Any], Any]]] = {
    "name": (str, lambda text: (SANITIZER.clean.clear(), SANITIZER.text(text, 512))),
    "name, kept before": (str, lambda text: SANITIZER.text(text, 512, again=True)),
    "event": (str, _event),
    "payload: one text": (lambda text: _json({"a": text}), _kept),
    "payload: own rules": (lambda text: _json({"a": text}), lambda raw: OWN.payload(raw=raw)),
    "payload: members": (lambda text: _json(_members(text)), _kept),
    "payload: items": (lambda text: _json(_each(text)), _kept),
    "payload: pairs": (lambda text: _json([{"name": part, "value": part} for part in _each(text)]), _kept),
    "payload: as it came": (_bytes, _kept),
    "payload: stored": (lambda text: json.dumps({"a": text}), SANITIZER.restored),
    "read": (_bytes, _refusing(read)),
    "read: a call": (_call, _refusing(read)),
    "peek": (_bytes, peek),
    "glance": (_bytes, glance),
    "stream": (_bytes, lambda raw: [frame(event) for event in SseReader().feed(raw)]),
    "answer": (_bytes, _refusing(read_reply)),
    "list": (_bytes, _refusing(lambda raw: filter_result(raw, lambda *_: True))),
    "headers": (
        lambda text: text.encode("latin-1", "replace"),
        lambda raw: (presented([(b"authorization", raw)]), client_address("10.0.0.1", [raw], ())),
    ),
    "policy": (str, _conditions()),
}


# -- what it is made of


def _sample(pattern: str, r: random.Random) -> str:
    """Give one of the shortest texts that a pattern matches."""

    def made(tree: Any) -> str:
        out = ""
        for op, value in tree:
            match str(op):
                case "LITERAL":
                    out += chr(value)
                case "NOT_LITERAL" | "ANY":
                    out += "x"
                case "IN" if str(value[0][0]) == "NEGATE":
                    out += "q"
                case "IN":
                    kind, one = r.choice(value)
                    out += chr(one) if str(kind) == "LITERAL" else chr(r.randint(*one)) if str(kind) == "RANGE" else "1"
                case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                    out += "".join(made(value[2]) for _ in range(min(value[0], 20)))
                case "SUBPATTERN":
                    out += made(value[3])
                case "BRANCH":
                    out += made(r.choice(value[1]))
                case "ATOMIC_GROUP":
                    out += made(value)
                case _:
                    pass  # places, and what only looks
        return out

    try:
        return made(patterns.parse(pattern.replace(r"\z", r"\Z")))
    except (re.error, TypeError, ValueError):
        return ""


def atoms(r: random.Random) -> list[str]:
    """Give what detectors look for, whole and begun, and what holds texts together."""
    found: set[str] = set()
    for form in forms.FORMS:
        before, inside = _sample(form.before, r), _sample(form.pattern, r)
        found |= {before, before + inside, inside[:4], inside[:8], *(need.decode() for need in form.needs)}
    for module in TABLES:
        for thing in vars(module).values():
            text = getattr(thing, "pattern", None)
            if isinstance(text, bytes):
                one = _sample(text.decode("utf-8", "replace"), r)
                found |= {one, one[:6]}
    found |= {re.sub(r"[^\w ]", "", word) for word in lexical.TRIGGERS.split("|")}
    found |= set("[ ] { } ( ) < > \" ' ` \\ , : ; = & ? # % $ @ / | - _ . + ~ * ! 0 7 a Z é \u202e \u200b".split())
    found |= {
        " ", "\n", "\t", "\r\n", "\\n", '\\"', "\\\\", "\\u0041", "\\u{41}", "%41", "%2541", "&quot;", "&amp;amp;", "&#65;",
        "password=", "password: ", "the password is x ", '"name":"token",', '"value":"', "--token ", "-p a", "Bearer ",
        "bearer+", "://a:b@", "?sig=", "data: ", "data: {}\n\n", "[REDACTED:", "[REDACTED:token:00000000]", "${", "<a>",
        '{"a":', '{"a":1,"a":2},', '"id":"', "1.10,", "-0,", "1e9,", "12345678901234567890,", "password,x\n1,2\n",
        "AbC1dEf2GhI3jKl4MnO5", "YWJjZGVmZ2hpamtsbW5vcA", "-----BEGIN PRIVATE KEY-----", "key: ", "user@example.org ",
    }  # fmt: skip
    return sorted(found - {""})


WRAPS: tuple[Callable[[str], str], ...] = (
    lambda text: text,
    lambda text: json.dumps({"a": text}),
    lambda text: json.dumps(json.dumps([text])),
    quote,
    lambda text: quote(quote(text)),
    html.escape,
    lambda text: base64.b64encode(text.encode("utf-8", "replace")).decode(),
    lambda text: f"data: {text}\n\n",
    lambda text: "[" * 100 + text + "]" * 100,
)


def repeated(unit: str, size: int, lead: str = "", tail: str = "") -> str:
    """Repeat a unit up to a size."""
    return (lead + unit * (size // max(1, len(unit)) + 1))[:size] + tail


# -- the search


@dataclass(frozen=True, slots=True, order=True)
class Dear:
    """An input and what a byte of it costs."""

    cost: float
    reader: str
    unit: str
    wrap: int = 0
    lead: str = ""

    def text(self, size: int) -> str:
        """Make the input, of about a size."""
        return WRAPS[self.wrap](repeated(self.unit, size, self.lead))


def took(function: Callable[[], Any], runs: int) -> float:
    """Give the least processor time of several runs."""
    least = float("inf")
    for _ in range(runs):
        began = time.thread_time()
        function()
        least = min(least, time.thread_time() - began)
    return least


def unit(runs: int = 5) -> float:
    """Say how slow this machine is now: 1 where the costs were first measured."""

    def work() -> None:
        for _ in range(200):
            _CALIBRATION.sub(b"x", b"the quick brown fox 0123456789 " * 10)
            sum(value * 3 for value in range(200))

    return max(1.0, took(work, runs) / 0.0085)


_CALIBRATION = re.compile(rb"[a-z]+|[0-9]{2}")


def measured(reader: str, text: str, runs: int) -> float:
    """Give the microseconds a byte that a reader takes for what is made of a text."""
    make, function = READERS[reader]
    made = make(text)
    size = max(1, len(made if isinstance(made, bytes) else _bytes(made)))
    return took(lambda: function(made), runs) / size * 1e6


def growth(one: Dear, size: int, runs: int = 5) -> float:
    """Say how much dearer a byte is when there are four times as many."""
    return measured(one.reader, one.text(size * 4), runs) / measured(one.reader, one.text(size), runs)


def search(
    readers: Sequence[str], r: random.Random, *, size: int = SIZE, tries: int = 0, seconds: float = 0.0
) -> Iterator[Dear]:
    """Yield inputs and their costs: so many, or for so long."""
    found = atoms(r)
    waiting = {reader: r.sample(found, len(found)) for reader in readers}
    best: dict[str, list[Dear]] = {reader: [] for reader in readers}
    end = time.monotonic() + seconds
    count = 0
    while count < tries or time.monotonic() < end:
        reader = readers[count % len(readers)]
        count += 1
        unit, wrap, lead = "", 0, ""
        if waiting[reader] and r.random() < 0.6:
            unit = waiting[reader].pop()
        elif best[reader] and r.random() < 0.6:
            one = r.choice(best[reader])
            unit, wrap, lead = one.unit, one.wrap, one.lead
            unit = r.choice((unit + r.choice(found), r.choice(found) + unit, unit[: r.randint(1, len(unit))], unit))
        else:
            unit = "".join(r.choice(found) for _ in range(r.randint(2, 3)))
        if r.random() < 0.3:
            wrap = r.randrange(len(WRAPS))
        if r.random() < 0.15:
            lead = r.choice(found)
        dear = Dear(0.0, reader, unit[:300], wrap, lead[:100])
        dear = Dear(measured(reader, dear.text(size), 1), reader, dear.unit, dear.wrap, dear.lead)
        best[reader] = sorted([*best[reader], dear], reverse=True)[:12]
        yield dear


def settled(one: Dear, size: int = SIZE, runs: int = 7) -> float:
    """Measure an input again, patiently, and in units of the machine as it is now."""
    return measured(one.reader, one.text(size), runs) / unit()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Search for inputs that are dear for their length.")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument("--reader", action="append", choices=tuple(READERS), help="only these; may be given again")
    parser.add_argument("--show", type=int, default=25)
    given = parser.parse_args(argv)
    seed = random.randrange(1 << 30) if given.seed is None else given.seed
    r = random.Random(seed)
    names = given.reader or tuple(READERS)
    dearest: list[Dear] = []
    count = 0
    for dear in search(names, r, size=given.size, seconds=given.seconds):
        count += 1
        dearest.append(dear)
        if len(dearest) > 2_000:
            dearest = sorted(dearest, reverse=True)[:400]
    print(f"seed {seed}: {count} inputs of about {given.size} bytes")
    over = 0
    for dear in sorted(dearest, reverse=True)[: given.show]:
        cost = settled(dear, given.size)
        over += cost > MOST
        wrap = f" wrap {dear.wrap}" if dear.wrap else ""
        print(
            f"{cost:6.1f} us/B  x{growth(dear, given.size // 2, 3):4.1f}  {dear.reader:20}{wrap} {dear.lead!r} {dear.unit!r}"[
                :200
            ]
        )
    for name in names:
        top = max((dear for dear in dearest if dear.reader == name), default=None)
        print(f"{name:20} {top.cost if top else 0.0:6.1f}")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
