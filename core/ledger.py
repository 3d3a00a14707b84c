"""Who takes how much of what all share (pure): bytes that wait, slots of an upstream, sessions, connections.

A product of bounds is no bound: two hundred streams of sixteen megabytes each are three gigabytes. So whatever waits on
somebody's behalf is counted against one number for that caller and one for the process.

The rule leaves room for whoever comes next, however many are here already: a caller may have no more than is left over
for others. Alone it gets half, two get a third each, and nobody has to be thrown out to let another in.

    hold = ledger.hold(key_id)
    if not hold.set(size): ...      what grows is ended, and nothing else is touched
    hold.close()
"""

from __future__ import annotations

#: what waits below this many bytes is not counted: a socket's buffer holds as much
SMALL = 64 * 1024


class Ledger:
    """Counts something of which there is so much in all, and at most so much for one owner."""

    __slots__ = ("_taken", "most", "most_each", "total")

    def __init__(self, most: int, most_each: int = 0) -> None:
        self.most = most
        self.most_each = most_each or most
        self.total = 0
        self._taken: dict[str, int] = {}

    def of(self, owner: str) -> int:
        return self._taken.get(owner, 0)

    def room(self, owner: str, more: int = 1) -> bool:
        """Tell whether an owner may take so much more."""
        return self._taken.get(owner, 0) + more <= min(self.most_each, self.most - self.total)

    def take(self, owner: str, more: int = 1) -> bool:
        """Take so much, or nothing when it is more than the owner's share."""
        if not self.room(owner, more):
            return False
        self.add(owner, more)
        return True

    def add(self, owner: str, more: int = 1) -> None:
        """Count so much, whether or not there is room."""
        self._taken[owner] = self._taken.get(owner, 0) + more
        self.total += more

    def give(self, owner: str, less: int = 1) -> None:
        left = self._taken.get(owner, 0) - less
        if left > 0:
            self._taken[owner] = left
        else:
            self._taken.pop(owner, None)
        self.total -= less

    def hold(self, owner: str) -> Hold:
        """Begin to count one thing that grows and shrinks."""
        return Hold(self, owner)


class Hold:
    """The bytes that wait in one place; gives all of them back when it is closed."""

    __slots__ = ("_closed", "_ledger", "_owner", "size")

    def __init__(self, ledger: Ledger, owner: str) -> None:
        self._ledger = ledger
        self._owner = owner
        self._closed = False
        self.size = 0

    def set(self, size: int) -> bool:
        """Say how many bytes wait here now; False when that is more than the owner's share (then nothing changes)."""
        if size <= SMALL:
            size = 0
        more = size - self.size
        if more > 0:
            if self._closed or not self._ledger.take(self._owner, more):
                return False
        elif more:
            self._ledger.give(self._owner, -more)
        self.size = size
        return True

    def close(self) -> None:
        """Give everything back; safe any number of times."""
        self._closed = True
        if self.size:
            self._ledger.give(self._owner, self.size)
            self.size = 0
