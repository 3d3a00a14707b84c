from __future__ import annotations

import asyncio

import uvloop

#: the modules that talk to sockets and processes: they must hold on both loops, Daphne's and `serve`'s
BOTH_LOOPS = {"test_streamable_http", "test_tls", "test_stdio", "test_http_sse"}


def pytest_asyncio_loop_factories(config, item):
    name = item.path.stem
    if name in BOTH_LOOPS:
        return {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.SelectorEventLoop}
