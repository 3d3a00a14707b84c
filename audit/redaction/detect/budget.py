"""How much looking a text is worth (pure): counted in steps, of which a text has so many as it is long.

Every finder pays for what it reads, above all for what it reads in vain and may read again from the next byte. So no text is
dear for its length, whatever it is made of: one that costs more than it is worth is not read to its end, but replaced whole.
Steps are counted, not timed, so that the same text has the same answer everywhere.
"""

from __future__ import annotations

__all__ = ("Effort", "TooDear")

# What a text has to spend: five times what the corpus of wrapped secrets takes, twice what source code takes. However short,
# it may be wrapped in each of the ways once.
PER_BYTE = 96
AT_LEAST = 6_144


class TooDear(Exception):
    """The text costs more than it is worth: it is replaced whole."""


class Effort:
    """What is left to spend on one text and on all that it wraps."""

    __slots__ = ("left",)

    def __init__(self, size: int) -> None:
        self.left = size * PER_BYTE + AT_LEAST

    def spend(self, steps: int) -> None:
        """Pay for reading so many bytes once."""
        self.left -= steps
        if self.left < 0:
            raise TooDear
