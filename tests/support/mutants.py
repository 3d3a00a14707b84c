"""Requests that are nearly good: what two readers might read differently, made by mutation from good ones.

`mutated` changes a body; `mutant` a whole request: its headers in both eras, what its body is said to be (and often really is:
in another charset, or compressed), its arguments however deep, its URIs, its query.
"""

from __future__ import annotations

import base64
import gzip
import json
import random
import zlib
from dataclasses import dataclass, field, replace

Header = tuple[bytes, bytes]

SEEDS = [
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"public.echo","arguments":{"text":"hi","n":1.5}}}',
    b'{"jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": {"arguments": {"id": [1, {"name": "x"}]}, "name": "x"}}',
    b'{"params":{"uri":"file:///a","_meta":{"progressToken":7}},"method":"resources/read","id":-3,"jsonrpc":"2.0"}',
    b'{"jsonrpc":"2.0","id":"\\u0031","method":"prompts/get","params":{"name":"p\\u00e9","arguments":{"a":"\\ud83d\\ude00"}}}',
    b'{"jsonrpc":"2.0","id":2,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"p"},"argument":{"name":"a","value":"b"}}}',
    b'{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"x","arguments":{"a":{"params":{"name":"y","arguments":{"b":[[{"method":"z"}]]}}}}}}',
    b'{"jsonrpc":"2.0","id":6,"method":"tools/call","params":{"name":"pay","arguments":{"note":"n","to":{"name":"y","cost":50}}}}',
    b'{"jsonrpc":"2.0","id":7,"method":"resources/read","params":{"uri":"file:///public/b"}}',
]
PIECES = [
    *[b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b" ", b"\n", b"\t", b"\x0b", b"\xa0", b"\x00", b"/*x*/", b"'"],
    *[b"\xef\xbb\xbf", b"\xff", b"\xc3\xa9", b"\xe2\x80\xa8", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"\\u003a", b"\\u0022"],
    *[b"NaN", b"Infinity", b"null", b"true", b"0", b"-", b"1e9", b"1E400", b".5", b"01", b"9007199254740993", b"1" * 25, b"+1"],
    *[b'"name":"danger",', b'"Name":"danger",', b'"n\\u0061me":"danger",', b'"NAME":"danger",', b'"name\\u0000":"danger",'],
    *[b'"method":"tools/call",', b'"Method":"x",', b'"id":9,', b'"ID":9,', b'"params":{},', b'"Params":{"name":"danger"},'],
    *[b'"argument\xc5\xbf":{},', b'"arguments":{"x":1},', b'"uri":"danger",', b'"_meta":{},', b'"__proto__":{"name":"danger"},'],
    *[b'"cost":999,', b'"Cost":999,', b'"COST":999,', b'"co\xc5\xbft":999,', b'"co\\u017ft":999,', b'"c\\u006fst":999,', b'"cost\\u0000":999,'],
    *[b'"to":{"cost":999},', b'"To":{"cost":999},', b'"to\xe2\x80\x8b":{"cost":999},', b'"cost":1e3,', b'"cost":1E+2,', b'"cost":100.0000000000000000001,'],
    *[b'"constructor":1,', b'"toString":"x",', b'"text":"danger",', b'"n":2,', b'"":1,', b'"":2,', b'"result":1,'],
]  # fmt: skip

MODERN = b"2026-07-28"
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": MODERN.decode(),
    "io.modelcontextprotocol/clientCapabilities": {},
}
# Text inside a string that is another message to who reads it in UTF-7, where +ACI- is a quotation mark.
INNER = "+ACI-},+ACI-name+ACI-:+ACI-danger+ACI-,+ACI-uri+ACI-:+ACI-danger+ACI-,+ACI-z+ACI-:{+ACI-z+ACI-:+ACI-"
CHARSETS = ["utf-7", "utf-16", "utf-16le", "utf-16be", "utf-32", "utf-32le", "iso-8859-1", "windows-1252", "shift_jis", "euc-jp", "iso-2022-jp",
            "iso-2022-kr", "hz", "gb18030", "big5", "cp037", "cp500", "cp1140", "koi8-r", "utf-8", "utf8", "UTF-8", "unicode-1-1-utf-7"]  # fmt: skip
TYPES = ["application/json; charset={}", "application/json;charset={}", 'application/json; charset="{}"', "application/json; charset={}; x=utf-8",
         "application/json; x=utf-8; charset={}", "application/json; charset=utf-8; charset={}", "application/json; charset={}; charset=utf-8",
         "application/json; charset*=utf-8''{}", "application/json, application/json; charset={}", "application/json; charset={}, text/plain",
         "text/plain; charset={}", "application/json;;charset={}", "application/json; boundary=utf-8; charset={}", "APPLICATION/JSON ; CHARSET={}",
         "application/json; charset='{}'", "application/json; charset = {}", "application/vnd.api+json; charset={}", "*/*; charset={}"]  # fmt: skip
PLAIN_TYPES = [b"application/json", b"Application/Json", b"application/json;", b"application/json; charset=utf-8", b"text/plain", b"", b"application/jsonx",
               b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=x", b"application/json\t; charset=UTF-8", b"application/json; q=1"]  # fmt: skip
ACCEPTS = [b"*/*", b"application/json", b"text/event-stream", b"application/json;q=0.1, text/event-stream", b"text/html", b"", b"application/*, text/*",
           b"application/json;q=0, */*", b"\xff"]  # fmt: skip
OTHERS: list[Header] = [
    (b"X-HTTP-Method-Override", b"GET"), (b"X-HTTP-Method", b"DELETE"), (b"X-Method-Override", b"PUT"), (b"X-Original-URL", b"/danger"), (b"X-Rewrite-URL", b"/danger"),
    (b"Content-Language", b"x"), (b"Accept-Charset", b"utf-7"), (b"Last-Event-ID", b"7"), (b"Content_Type", b"application/json; charset=utf-7"), (b"Mcp-Init-Host", b"danger"),
    (b"Content-Type-Override", b"text/plain"), (b"Content-Transfer-Encoding", b"base64"), (b"tracestate", b"a=b,a=c"), (b"tracestate", b"\xff"), (b"baggage", b"a=b, c = d;e"),
    (b"X-Forwarded-Host", b"danger"), (b"Cookie", b"name=danger"), (b"Via", b"1.1 danger"), (b"Forwarded", b"host=danger"), (b"Mcp-Session-Id", b"danger"), (b"Range", b"bytes=1-"),
]  # fmt: skip
QUERIES = [
    b"?name=danger",
    b"?method=tools/call&name=danger",
    b"?_method=DELETE",
    b"?session_id=x",
    b"?",
    b"?%00",
    b"?a=b?c",
    b"?;name=danger",
    b"?charset=utf-7",
]
URIS = [b"file:///%61", b"file:///./a", b"file:///a/../danger", b"file:///danger", b"file:////a", b"FILE:///a", b"file://localhost/a", b"file:///a?x", b"file:///a#x",
        b"file:///a/", b"file:///\\u0061", b"file:\\/\\/\\/a", b"file:///a%00", b"file:///a%2f..%2fdanger", b"file:/a", b"file:///A", b"file:///a%20", b" file:///a",
        *(b"file:///public/" + way for way in (b"../danger", b"%2e%2e/danger", b"./../danger", b"/../danger", b"..%2fdanger", b"..\\\\danger", b"%2e./danger", b"x/../b", b"%62",
                                               b"b;/../../danger", b"..;/danger", b"b?/../danger", b"b#/../danger", b"%252e%252e/danger", b"%c0%ae%c0%ae/danger", b"b%20c", b".\\t./danger"))]  # fmt: skip
NAMES = [b"danger", b"", b" x ", b"X", b"x\t", b"=?base64?eA==?=", b"=?BASE64?ZGFuZ2Vy?=", b"=?base64?eA?=", b"=?base64?eB==?=", b"=?base64?ZGFuZ2Vy?=", b"=?base64??=", b"p\xe9", b"p\xc3\xa9", b"=?utf-8?b?eA==?="]  # fmt: skip


@dataclass
class Mutant:
    """One request: the headers beside its credential and its trace, the body, and what follows the address."""

    body: bytes
    headers: list[Header] = field(default_factory=list)
    query: bytes = b""


def mutated(rng: random.Random, seed: bytes = b"") -> bytes:
    """A body, by default one of the seeds, changed in one to three places."""
    body = seed or rng.choice(SEEDS)
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


def mutant(rng: random.Random, modern: bool) -> Mutant:
    """A good request of one of the eras, changed in one or two of its parts."""
    one = good(rng, modern)
    for change in rng.sample(CHANGES, rng.choice((0, 1, 1, 1, 2))):
        one = change(rng, one)
    rng.shuffle(one.headers)
    return one


def good(rng: random.Random, modern: bool) -> Mutant:
    """A good request."""
    body = rng.choice(SEEDS)
    headers = [(b"Content-Type", b"application/json"), (b"Accept", b"application/json, text/event-stream")]
    if not modern:
        if rng.random() < 0.5:
            headers.append((b"MCP-Protocol-Version", rng.choice((b"2025-11-25", b"2025-06-18", b"2025-03-26"))))
        return Mutant(body, headers)
    message = json.loads(body)
    message["params"].setdefault("_meta", {}).update(ENVELOPE)
    body = json.dumps(message, ensure_ascii=rng.random() < 0.5).encode()
    named = message["params"].get("name", message["params"].get("uri"))
    headers += [(b"MCP-Protocol-Version", MODERN), (b"Mcp-Method", message["method"].encode())]
    if named is not None:
        headers.append((b"Mcp-Name", named.encode() if named.isascii() and rng.random() < 0.8 else sentinel(named)))
    return Mutant(body, headers)


def sentinel(text: str) -> bytes:
    """A mirrored value in base64."""
    return b"=?base64?" + base64.b64encode(text.encode()) + b"?="


def _body(rng: random.Random, one: Mutant) -> Mutant:
    return replace(one, body=mutated(rng, one.body))


def _nested(rng: random.Random, one: Mutant) -> Mutant:
    """Something more, anywhere among the arguments."""
    inner = rng.choice(PIECES[-23:])
    for _ in range(rng.choice((0, 1, 3, 40))):
        inner = b'"%b":{%b"z":1},' % (rng.choice((b"params", b"arguments", b"a", b"name", b"_meta")), inner)
    at = one.body.find(b'"arguments"')
    at = one.body.find(b"{", at) + 1 if at >= 0 else 1
    return replace(one, body=one.body[:at] + inner + one.body[at:])


def _name(rng: random.Random, one: Mutant) -> Mutant:
    """Something that the role may not have, or has by another name."""
    for wanted in (b"public.echo", b'"x"', b"p\xc3\xa9", b"p\\u00e9", b"file:///a"):
        if wanted in one.body:
            name = rng.choice((b"danger", b"delete_customer", wanted.strip(b'"').upper(), wanted.strip(b'"') + b" "))
            quoted = b'"%b"' % name if wanted.startswith(b'"') else name
            headers = [(n, name if n == b"Mcp-Name" else v) for n, v in one.headers]
            return replace(one, body=one.body.replace(wanted, quoted), headers=headers)
    return one


def _uri(rng: random.Random, one: Mutant) -> Mutant:
    uri = rng.choice(URIS)
    headers = [(n, uri if n == b"Mcp-Name" and v == b"file:///a" else v) for n, v in one.headers]
    return replace(one, body=one.body.replace(b"file:///a", uri), headers=headers)


def _type(rng: random.Random, one: Mutant) -> Mutant:
    """What the body is said to be; mostly it is that, or it is one message in UTF-8 and another in UTF-7."""
    headers = [line for line in one.headers if line[0] != b"Content-Type"]
    if rng.random() < 0.25:
        return replace(
            one, headers=[*headers, *([(b"Content-Type", rng.choice(PLAIN_TYPES))] if rng.random() < 0.8 else [])]
        )
    charset, body = rng.choice(CHARSETS), one.body
    if rng.random() < 0.4:
        charset = rng.choice(("utf-7", "UTF-7", "unicode-1-1-utf-7"))
        places = [body.find(b'"hi"') + 3, body.find(b'"y"') + 2, body.find(b'"file:///a"') + 10, body.find(b'"p') + 2]
        at = rng.choice([place for place in places if place > 10] or [len(body)])
        body = body[:at] + INNER.encode() + body[at:]
    elif rng.random() < 0.7:
        try:
            body = body.decode().replace("public.echo", rng.choice(("public.echo", "danger"))).encode(charset)
        except (LookupError, UnicodeError):
            pass
    lines = [(b"Content-Type", rng.choice(TYPES).format(charset).encode())]
    if rng.random() < 0.3:
        lines.insert(rng.randrange(2), (rng.choice((b"Content-Type", b"content-type")), b"application/json"))
    return Mutant(body, [*headers, *lines], one.query)


def _coding(rng: random.Random, one: Mutant) -> Mutant:
    coding = rng.choice(
        (
            b"gzip",
            b"deflate",
            b"br",
            b"zstd",
            b"x-gzip",
            b"GZIP",
            b"identity",
            b"identity, gzip",
            b"gzip, identity",
            b"",
            b"\xff",
        )
    )
    squeeze = gzip.compress if b"gzip" in coding.lower() else zlib.compress
    body = squeeze(one.body) if rng.random() < 0.6 else one.body
    lines = [(b"Content-Encoding", coding)]
    if rng.random() < 0.3:
        lines.insert(rng.randrange(2), (b"Content-Encoding", rng.choice((b"identity", b"gzip", b""))))
    return replace(one, body=body, headers=[*one.headers, *lines])


def _protocol(rng: random.Random, one: Mutant) -> Mutant:
    """One of the protocol's own headers: another value, gone, twice, another spelling of its name; left over from the other era."""
    named = rng.choice(
        (b"Mcp-Name", b"Mcp-Method", b"MCP-Protocol-Version", b"Mcp-Param-A", b"Mcp-Param-A_B", b"Mcp-Session-Id")
    )
    value = rng.choice((*NAMES, b"tools/call", b"tools/list", MODERN, b"2025-11-25", b"1999-01-01"))
    spelled = rng.choice((named, named.upper(), named.replace(b"-", b"_"), named.replace(b"-", b"."), named.lower()))
    headers = list(one.headers)
    what = rng.random()
    if what < 0.35:
        headers = [(n, v) for n, v in headers if n != named]
    elif what < 0.5:
        headers = [
            (
                n,
                rng.choice((b" %b\t" % v, v.swapcase(), sentinel(v.decode("latin-1")), v + b"\xa0"))
                if n == named
                else v,
            )
            for n, v in headers
        ]
        return replace(one, headers=headers)
    if what < 0.9:
        headers.append((spelled, value))
    return replace(one, headers=headers)


def _other(rng: random.Random, one: Mutant) -> Mutant:
    headers = [*one.headers, *rng.sample(OTHERS, rng.choice((1, 1, 3)))]
    if rng.random() < 0.4:
        headers = [line for line in headers if line[0] != b"Accept"] + [(b"Accept", rng.choice(ACCEPTS))]
    return replace(one, headers=headers)


def _query(rng: random.Random, one: Mutant) -> Mutant:
    return replace(one, query=rng.choice(QUERIES))


CHANGES = [_body, _nested, _name, _uri, _type, _type, _coding, _protocol, _protocol, _other, _query]
