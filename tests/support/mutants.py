"""Bodies that are nearly messages: what two parsers might read differently, made by mutation from good ones."""

from __future__ import annotations

import random

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


def mutated(rng: random.Random) -> bytes:
    """One of the seeds, changed in one to three places."""
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
