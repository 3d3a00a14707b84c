"""The first payloads of a process, sanitised before anybody waits for them: automata are built as they are used."""

from __future__ import annotations

import json
import logging

from audit.redaction import sanitizer

__all__ = ["warm"]

log = logging.getLogger("sentinel.audit")

_CALL = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {
        "name": "search_documents",
        "arguments": {
            "query": "quarterly report",
            "limit": 10,
            "filter": {"owner": "ann", "since": "2026-01-01T00:00:00Z"},
        },
        "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "progressToken": 7},
    },
}
_TEXT = (
    "The report is at https://example.com/items/3f2504e0-4f89-41d3-9a0c-0305e82c3301?page=2 (größe: 1.2 MB).\n"
    "password=example; Authorization: Bearer 0123456789abcdef; postgres://app:example@db/app; the token is missing\n"
    '{"items": [{"name": "X-Api-Key", "value": "example-1"}]} ZXhhbXBsZSBvZiBiYXNlNjQgdGV4dA== sk-example-1234\n'
)
_RESULT = {"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": _TEXT}], "isError": False}}
_LONG = {"result": {"content": [{"type": "text", "text": f"{n} {_TEXT}"} for n in range(60)]}}


def warm() -> None:
    """Sanitise payloads of every sort once; never raises."""
    try:
        known = sanitizer.current()
        for made in (_CALL, _RESULT, {"error": {"code": -32000, "message": _TEXT}}, _LONG):
            known.payload(raw=json.dumps(made).encode())
        known.payload(raw=f"event: message\ndata: {json.dumps(_RESULT)}\n\n".encode(), content_type="text/event-stream")
        known.payload(raw=json.dumps(_RESULT).encode()[:-7])
        known.text("search_documents")
    except Exception:
        # A start must not fail for what only makes it faster.
        log.exception("sanitising could not be warmed up; the first payloads take longer")
