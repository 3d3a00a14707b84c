"""Differences that are meant, and why; any other is a defect, and fails the test.

What a server asks its client has no rightful receiver where several clients share one process, nor has a line of its log.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

SHARED = (
    "One process for all clients: what its server asks, and its log, have no rightful receiver (`--per-session` has)"
)
OWN_HELLO = "One process for all clients: the gateway's own `initialize` offers nothing, so the server lists less"
TAKEN_BACK = "What its client took back gets no answer, as the protocol asks; this server sends an error all the same"
ENDED = (
    "A cancel ends the session in this SDK (over stdio the process), directly too; the gateway tells the next request so: "
    "502, or 404 over SSE"
)
ONE_MEMORY = "One process for all clients: it remembers what others did"

EVERY = ("HTTP", "HTTP by /sse", "SSE", "SSE by /sse", "stdio", "stdio by /sse", "stdio, a process each")

#: server (a pattern), road, step (a pattern), and the reason; the first that fits
MEANT = (
    ("everything", "stdio", "list", OWN_HELLO),
    ("everything", "stdio by /sse", "list", OWN_HELLO),
    ("sequential-thinking", "stdio by /sse", "call", ONE_MEMORY),
    *(("playwright", road, "unknown tool", SHARED) for road in ("stdio", "stdio by /sse")),
    *(
        (server, road, "cancel", reason)
        for server, reason in (
            ("a server of mcp 1.9", ENDED),
            ("a server of mcp *", TAKEN_BACK),
            ("a server of fastmcp *", TAKEN_BACK),
        )
        for road in EVERY
    ),
    *(
        ("*", road, step, SHARED)
        for road in ("stdio", "stdio by /sse")
        for step in ("sampling", "elicitation", "roots", "progress", "subscribe", "logging", "tasks")
    ),
)


def why(server: str, road: str, step: str) -> str:
    """Why a difference is meant; an empty text where it is not."""
    for server_pattern, road_pattern, step_pattern, reason in MEANT:
        if fnmatchcase(server, server_pattern) and road == road_pattern and step == step_pattern:
            return reason
    return ""
