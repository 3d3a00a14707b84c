"""A place in a stream of an upstream's, as it is sealed into the event ids that clients hold (see proxy.follow_ups.resumption)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

#: in the order in which they are sealed
LEVELS: Final = ("full", "request", "digest", "none")


@dataclass(slots=True)
class Place:
    """What a sealed event id stands for: the upstream's id, and the call that its stream answers, if it does."""

    event_id: bytes
    call: UUID | None = None
    #: the call's JSON-RPC id as text (or its digest), to know the answer by
    rpc: bytes = b""
    #: how much the call's event keeps of payloads
    level: str = "full"
    #: when the call's event needs to be held open anew
    hold_at: float = 0.0

    def packed(self) -> bytes:
        """Give the bytes that are sealed."""
        if self.call is None:
            return b"-" + self.event_id
        return b"%d%b%c%b%b" % (LEVELS.index(self.level), self.call.bytes, len(self.rpc), self.rpc, self.event_id)

    @classmethod
    def unpacked(cls, value: bytes) -> Place:
        if value[:1] == b"-":
            return cls(value[1:])
        end = 18 + value[17]
        return cls(value[end:], UUID(bytes=value[1:17]), value[18:end], LEVELS[int(value[:1])])
