"""Readers of answers that are laxer than the gateway, each in a way that some client is, and answers to try them with.

`taken(status, content_type, body)` gives every JSON value that one of them takes for a message; `listed(value)` every item
that one of them takes for part of a list. Both err on the side of taking.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from typing import Any

R = random.Random


# --- JSON -------------------------------------------------------------------------------------------------------------


class Members(list[tuple[str, Any]]):
    """An object with all its members, those that come twice included."""


_DECODER = json.JSONDecoder(object_pairs_hook=Members, strict=False)


def values(text: str) -> Iterator[Any]:
    """The JSON values that stand one after the other in a text, whatever stands between or behind them."""
    place = 0
    while (found := re.compile(r"[\[{]").search(text, place)) is not None:
        try:
            value, place = _DECODER.raw_decode(text, found.start())
        except (ValueError, RecursionError):
            place = found.start() + 1
            continue
        yield value


def texts(data: bytes) -> Iterator[str]:
    """The texts that bytes are to readers of several minds."""
    yield data.decode("utf-8", "replace")
    yield data.decode("utf-8-sig", "ignore")
    yield data.decode("latin-1")
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-7"):
        try:
            yield data.decode(encoding)
        except UnicodeDecodeError:
            continue


# --- event streams ----------------------------------------------------------------------------------------------------

_ENDS = {"the standard": r"\r\n|\r|\n", "LF": r"\n", "CR LF": r"\r\n", "all that Python splits at": ""}


def events(text: str) -> Iterator[str]:
    """The data of the events of a stream, as read by every mix of habits."""
    for ends in _ENDS.values():
        lines = re.split(ends, text) if ends else text.splitlines()
        for trims in (False, True):
            block: list[str] = []
            for line in [*lines, ""]:  # the last event without its blank line too
                line = line.strip() if trims else line.rstrip("\r")
                if line:
                    block.append(line)
                    continue
                data = [
                    value.removeprefix(" ")
                    for name, colon, value in (each.partition(":") for each in block)
                    if colon and name.strip("\ufeff ").lower() == "data"
                ]
                block = []
                if data:
                    yield "\n".join(data)
                    yield "".join(data)
                    yield from data


# --- messages ---------------------------------------------------------------------------------------------------------


def messages(value: Any) -> Iterator[Any]:
    """The messages in a value: itself, and those of a batch."""
    if isinstance(value, Members):
        yield value
    elif isinstance(value, list):
        for member in value:
            yield from messages(member)


def member(value: Any, name: str) -> list[Any]:
    """Every member that goes by a name in any case."""
    return [v for n, v in value if n.casefold() == name] if isinstance(value, Members) else []


def taken(content_type: str, body: bytes) -> Iterator[Any]:
    """Every value that some reader takes for an answer: it has a result or an error (in any case, also twice)."""
    for text in texts(body):
        for source in (text, *events(text)):
            for value in values(source):
                for message in messages(value):
                    if member(message, "result") or member(message, "error"):
                        yield message


def listed(message: Any) -> Iterator[str]:
    """The names that some reader finds listed in an answer."""
    for result in member(message, "result"):
        for kind in ("tools", "prompts", "resources", "resourcetemplates"):
            for items in member(result, kind):
                for item in (
                    [v for _, v in items] if isinstance(items, Members) else items if isinstance(items, list) else []
                ):
                    for naming in ("name", "uri", "uritemplate"):
                        yield from (str(name) for name in member(item, naming))


def marks(message: Any) -> set[str]:
    """The marks in an answer."""
    return set(re.findall(r"MARK\d+X", json.dumps(message)))


# --- answers ----------------------------------------------------------------------------------------------------------


def _body(r: R, rpc_id: Any, method: str, mark: str) -> str:
    """The JSON of an answer, right or with something wrong."""
    hidden = f'{{"name":"delete_customer","description":"{mark}"}}'
    shown = f'{{"name":"list_customers","description":"{mark}"}}'
    tools = r.choice(
        (f"[{shown},{hidden}]", f"[{hidden}]", f'{{"0":{hidden}}}', hidden, "null", f"[[{hidden}]]", f'"{mark}"')
    )
    content = f'[{{"type":"text","text":"{mark}"}}]'
    member = r.choice(
        ("tools", "tools", "tools", "Tools", "TOOLS", "tool\\u017f", "prompts", "resources", "resourceTemplates")
    )
    listing = f'"{member}":{tools}'
    inner = r.choice((listing, f'"content":{content}', f'"content":{content},{listing}', f"{listing},{listing}"))
    if r.random() < 0.5:
        inner = f'"tools":[{shown},{hidden}]' if method == "tools/list" else f'"content":{content}'
    ids = json.dumps(rpc_id)
    own = r.choice((ids, ids, ids, ids, json.dumps(str(rpc_id)), "null", "7", "1.0", f"[{ids}]"))
    result = r.choice(("result", "result", "result", "result", "Result", "re\\u0073ult", "re\\u017fult"))
    value = f'{{"jsonrpc":"2.0","id":{own},"{result}":{{{inner}}}}}'
    error = f'{{"jsonrpc":"2.0","id":{own},"error":{{"code":-1,"message":"{mark}","data":{{{listing}}}}}}}'
    turn = r.randrange(16)
    if turn == 0:
        return error
    if turn == 1:
        return f"[{value}]"
    if turn == 2:
        return f'{value[:-1]},"result":{{"tools":[{hidden}]}}}}'
    if turn == 3:
        return f"{value}{r.choice((' ', chr(10), ',', ''))}{value}"
    if turn == 4:
        return f'{{"jsonrpc":"2.0","method":"notifications/x","params":{{}},"id":{own},"result":{{{inner}}}}}'
    if turn == 5:
        return value.replace('"2.0"', r.choice(("2.0", '"1.0"', "null")))
    if turn == 6:
        return value[: r.randrange(len(value))]
    if turn == 7:
        at = r.randrange(len(value))
        return value[:at] + r.choice(("\x00", "\n", "NaN", ",", "}", '"', "\ud800", "\u2028")) + value[at:]
    if turn == 8:
        return f'{{"a":[\n{value}\n],"jsonrpc":"2.0","id":{own},"result":{{"content":[]}}}}'
    if turn == 9:
        return json.dumps(json.loads(value), indent=1)
    if turn == 10:
        return f'[{{"jsonrpc":"2.0","id":9,"method":"sampling/createMessage","params":{{}}}},{value}]'
    return value


def _event(r: R, text: str) -> str:
    """An event around a text, right or with something wrong."""
    end = r.choice(("\n", "\n", "\n", "\r\n", "\r", "\x0b", "\u2028"))
    field = r.choice(
        ("data: ", "data: ", "data: ", "data:", "Data: ", " data: ", "data : ", "\ufeffdata: ", "\tdata: ")
    )
    before = r.choice(
        (
            "",
            "",
            "",
            "event: message",
            "event: x",
            "event: endpoint",
            "id: 1",
            "id: a\x00",
            ": note",
            "data: {broken",
            "data:",
        )
    )
    if r.random() < 0.1:
        before = r.choice((": note\u2028", ": note\x0b", "x\u2028", "id: 1\x0c")) + field + text
    lines = [before] if before else []
    lines += [field + line for line in (text.split("\n") if r.random() < 0.8 else [text])]
    if r.random() < 0.1:
        lines.append(r.choice(("data: }", "data: {}", "data:", "event: message", "data", "retry: 1")))
    return end.join(lines) + r.choice((end * 2, end * 2, end * 2, "\n\n", "\r\n\r\n", end, ""))


class Answer:
    """One answer of an upstream: status, content type, bytes."""

    def __init__(self, r: R, rpc_id: Any, method: str, mark: str) -> None:
        text = _body(r, rpc_id, method, mark)
        self.size = r.choice((1, 3, 17, 100_000))
        if r.random() < 0.4:  # in order but for what it says
            stream = r.random() < 0.5
            self.status, self.content_type = 200, "text/event-stream" if stream else "application/json"
            lines = "".join(f"data: {line}\n" for line in text.split("\n"))
            self.body = (f"event: message\n{lines}\n" if stream else text).encode("utf-8", "surrogatepass")
            return
        json_type = r.choice(
            (
                "application/json",
                "application/json",
                "application/json; charset=utf-16",
                "text/plain",
                "Application/JSON",
                "",
            )
        )
        if r.random() < 0.6:
            good = f'{{"jsonrpc":"2.0","id":{json.dumps(rpc_id)},"result":{{"content":[]}}}}'
            note = '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}'
            parts = [_event(r, text)]
            for _ in range(r.randrange(3)):
                parts.insert(
                    r.randrange(len(parts) + 1),
                    r.choice((_event(r, note), _event(r, text), f"data: {good}\n\n", "\n", "\r\n")),
                )
            text = "".join(parts)
            self.content_type = r.choice(("text/event-stream",) * 6 + (json_type,))
        else:
            self.content_type = r.choice((json_type,) * 6 + ("text/event-stream",))
        self.status = r.choice((200,) * 12 + (201, 202, 204, 206, 400, 403, 404, 405, 409, 429))
        encoding = r.choice(("utf-8",) * 12 + ("utf-16", "utf-8-sig", "utf-7"))
        self.body = text.encode(encoding, "surrogatepass")
        if r.random() < 0.05:
            at = r.randrange(len(self.body) + 1)
            self.body = self.body[:at] + bytes([r.randrange(128, 256)]) + self.body[at:]
