"""Answers that come compressed, although the gateway asks for them as they are: undone piece by piece, within bounds.

    response = decoded(exchange, limits.answer_bytes)     raises Broken for a coding that nobody here reads

What is passed on, judged and recorded is what was compressed. Little can hide much, so no step gives more than STEP bytes, no
turn of the loop is held for longer than TURN_SECONDS, whoever reads bounds what it takes, and a stream that has grown past
the size of a whole answer is cut when it is mostly air. What a stream's codings keep of what they gave counts as waiting, for
as long as it is open. An end that is missing, and bytes behind the end, break the answer.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable
from typing import Protocol

import brotli
from backports import zstd

from proxy.upstreams.transports.base import Broken, TooLarge, UpstreamResponse

STEP = 64 * 1024
TURN_SECONDS = 0.01
#: how many codings one answer may lie in, and how many parts in a row may hold nothing
CODINGS_MOST = 4
EMPTY_PARTS_MOST = 16
#: how much larger than what came a stream may be, once it is larger than an answer may be
FOLD_MOST = 100
#: the memory one zstd stream may ask for, as a power of two: what RFC 9659 lets servers expect
ZSTD_WINDOW = 23


class _Coder(Protocol):
    """Undoes one coding; `hungry` once all it was given is used up, `over` at its end, `left` what followed that.

    What it gave last it keeps, up to `window` bytes, since what comes may refer to that.
    """

    window: int
    hungry: bool
    over: bool
    left: bytes

    def step(self, data: bytes) -> bytes:
        """Take more, and give about STEP bytes at most."""


class _Zlib:
    """gzip, and the two things that servers call deflate: with zlib's frame, as it should be, and without."""

    window = 1 << zlib.MAX_WBITS

    def __init__(self, bits: int) -> None:
        self._head = b""
        self._engine = zlib.decompressobj(bits) if bits else None
        self.hungry, self.over, self.left = True, False, b""

    def step(self, data: bytes) -> bytes:
        """Take more, and give STEP bytes at most."""
        if self._engine is None:
            self._head = data = self._head + data
            if len(data) < 2:
                self.hungry = True
                return b""
            framed = data[0] & 0x0F == 8 and int.from_bytes(data[:2]) % 31 == 0
            self._engine = zlib.decompressobj(zlib.MAX_WBITS if framed else -zlib.MAX_WBITS)
        engine = self._engine
        given = engine.decompress(engine.unconsumed_tail + data, STEP)
        self.over, self.left = engine.eof, engine.unused_data
        self.hungry = self.over or (not engine.unconsumed_tail and len(given) < STEP)
        return given


class _Brotli:
    def __init__(self) -> None:
        self.window = 0
        self._engine = brotli.Decompressor()
        self.hungry, self.over, self.left = True, False, b""

    def step(self, data: bytes) -> bytes:
        """Take more, and give about STEP bytes at most; bytes behind the end are an error."""
        if not self.window and data:
            self.window = _brotli_window(data[0])
        given: bytes = self._engine.process(data, output_buffer_limit=STEP)
        self.over = self._engine.is_finished()
        self.hungry = self.over or (self._engine.can_accept_more_data() and len(given) < STEP)
        return given


def _brotli_window(first: int) -> int:
    """Give the window that a stream's first byte asks for (RFC 7932, 9.1): 1 KiB to 16 MiB."""
    if not first & 1:
        return 1 << 16
    if more := first >> 1 & 7:
        return 1 << 17 + more
    return 1 << (8 + (first >> 4 & 7) if first >> 4 & 7 else 17)


class _Zstd:
    window = 1 << ZSTD_WINDOW

    def __init__(self) -> None:
        self._engine = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW})
        self.hungry, self.over, self.left = True, False, b""

    def step(self, data: bytes) -> bytes:
        """Take more, and give STEP bytes at most."""
        given = self._engine.decompress(data, STEP)
        self.over = self._engine.eof
        self.left = self._engine.unused_data if self.over else b""
        self.hungry = self.over or self._engine.needs_input
        return given


#: how each coding is undone, and whether it may come in several parts
_CODERS: dict[bytes, tuple[Callable[[], _Coder], bool]] = {
    b"gzip": (lambda: _Zlib(16 + zlib.MAX_WBITS), True),
    b"deflate": (lambda: _Zlib(0), False),
    b"br": (_Brotli, False),
    b"zstd": (_Zstd, True),
}
_CODERS[b"x-gzip"] = _CODERS[b"gzip"]
_ERRORS = (zlib.error, brotli.error, zstd.ZstdError, EOFError)


class _Stage:
    """One coding being undone, part after part."""

    def __init__(self, make: Callable[[], _Coder], several: bool) -> None:
        self._make, self._several = make, several
        self._coder: _Coder | None = None
        self._input = b""
        self._begun = self._empty = self._given = 0
        self.hungry = True

    @property
    def complete(self) -> bool:
        """Tell whether the data may end here: at the end of a part, or before anything came."""
        return self._coder is None

    @property
    def held(self) -> int:
        """Give how many bytes wait here, and are kept because what comes may refer to them."""
        return len(self._input) + (min(self._given, self._coder.window) if self._coder is not None else 0)

    def take(self, data: bytes) -> None:
        """Take what comes next; only when hungry."""
        self._input, self.hungry = data, False

    def step(self) -> bytes:
        coder = self._coder = self._coder or self._begin()
        data, self._input = self._input, b""
        given = coder.step(data)
        self._given += len(given)
        self.hungry = coder.hungry
        self._empty = 0 if given else self._empty
        if coder.over:
            self._coder, self._input, self._given = None, coder.left, 0
            self.hungry = not coder.left
        return given

    def _begin(self) -> _Coder:
        if self._begun and not self._several:
            raise EOFError("something follows the end")
        self._begun += 1
        self._empty += 1
        if self._empty > EMPTY_PARTS_MOST:
            raise EOFError("parts without anything in them")
        return self._make()


class Decoded(UpstreamResponse):
    """An answer as it was before it was compressed."""

    __slots__ = ("_came", "_free", "_gave", "_inner", "_since", "_stages")

    def __init__(self, inner: UpstreamResponse, stages: list[_Stage], free: int) -> None:
        super().__init__(inner.status, inner.headers)
        self._inner = inner
        self._stages = stages
        self._free = free
        self._came = self._gave = 0
        self._since = time.monotonic()

    @property
    def waiting(self) -> int:
        """Give how many bytes have come and were not read yet, and what is kept to read the rest."""
        return self._inner.waiting + sum(stage.held for stage in self._stages)

    async def read(self) -> bytes:
        """Give the next piece, as soon as what has come makes one."""
        while True:
            if time.monotonic() - self._since > TURN_SECONDS:
                await asyncio.sleep(0)
                self._since = time.monotonic()
            try:
                piece = self._pull()
            except _ERRORS as error:
                self.abort()
                raise Broken("The upstream's compressed answer cannot be read.", detail=str(error)) from None
            if piece:
                self._count(len(piece))
                return piece
            if piece is not None:
                continue
            data = await self._inner.read()
            if not data:
                if not all(stage.complete for stage in self._stages):
                    raise Broken("The upstream's compressed answer ended before it was whole.")
                return b""
            self._came += len(data)
            self._stages[0].take(data)

    def abort(self) -> None:
        self._inner.abort()

    def _pull(self) -> bytes | None:
        """Have the last stage that can do something do it; None when more has to come first."""
        for at in range(len(self._stages) - 1, -1, -1):
            stage = self._stages[at]
            if not stage.hungry:
                given = stage.step()
                if given and at + 1 < len(self._stages):
                    self._stages[at + 1].take(given)
                    return b""
                return given
        return None

    def _count(self, size: int) -> None:
        self._gave += size
        if self._gave > self._free and self._gave > FOLD_MOST * self._came:
            self.abort()
            raise TooLarge(
                "The upstream's compressed answer is larger than this gateway accepts.",
                detail=f"{self._came} bytes became {self._gave}",
            )


def decoded(inner: UpstreamResponse, codings: bytes, free: int) -> UpstreamResponse:
    """Undo an answer's codings, the last first; raises Broken for one that is not known."""
    names = [name for part in codings.lower().split(b",") if (name := part.strip(b" \t")) not in (b"", b"identity")]
    if any(name not in _CODERS for name in names) or len(names) > CODINGS_MOST:
        inner.abort()
        raise Broken(
            "The upstream's answer is in a coding that this gateway does not read; the call may have run.",
            detail="content-encoding",
            said=codings[:100].decode("latin-1"),
        )
    return Decoded(inner, [_Stage(*_CODERS[name]) for name in reversed(names)], free) if names else inner
