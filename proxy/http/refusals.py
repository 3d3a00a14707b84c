"""Refusals of the pipeline's own stages, made from the one table in proxy.http.answers."""

from __future__ import annotations

import math
from typing import Any, Protocol

from proxy.http.answers import REFUSALS, told
from proxy.mcp.message import Readable, Refused

UNAVAILABLE_SECONDS = 5  # what a caller is told to wait when nothing better is known


class Asked(Protocol):
    """What is refused, as far as its answer has to name it."""

    rpc_id: bytes


def refuse(
    reason: str,
    *,
    call: Asked | None = None,
    message: str = "",
    headers: tuple[tuple[bytes, bytes], ...] = (),
    retry_after: float | None = None,
    data: dict[str, Any] | None = None,
) -> Refused:
    """Make the refusal for a reason code; `message` replaces the table's words with a rule's own."""
    row = REFUSALS[told(reason)]
    known = Readable(id_json=call.rpc_id or None) if call is not None else Readable()
    if retry_after is None and row.status == 503:
        retry_after = UNAVAILABLE_SECONDS
    refused = Refused(row.status, row.code, reason, message or row.message, known=known, headers=headers, data=data)
    if retry_after is not None:
        refused.retry_after = max(1, math.ceil(retry_after))
    return refused
