"""What a careless reader takes a name for: case, width, marks and what cannot be seen are folded away (pure).

Go's `encoding/json` and .NET read member names in any case, by Unicode's rules: `cu\\u017ftomer_id` (a long s) is
`customer_id` to them. Others take `customerId` for `customer_id`, or end a name at a NUL. Names that fold alike are the same
to some reader, so what is decided about one must not be said by another.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

__all__ = ["fold", "loose", "varied"]

MOST: Final = (
    600  # characters of a member's name; no reader leaves so much away that a longer one is a variant of a path's step
)
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cn", "Co", "Mn", "Me", "Zs", "Zl", "Zp"})
_UNSEEN_ASCII: Final = dict.fromkeys((*range(33), 127))
_LOOSE: Final = str.maketrans("", "", "_-")


def fold(text: str) -> str:
    """The name that every spelling of it folds to: upper and lower case, full case folding and NFKC in one."""
    if text.isascii():
        return text.lower().translate(_UNSEEN_ASCII)
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).upper().casefold())
    return "".join(c for c in folded if unicodedata.category(c) not in _UNSEEN)


@lru_cache(maxsize=8192)
def _loose(name: str) -> str:
    return fold(name.partition("\0")[0]).translate(_LOOSE)


def loose(name: str) -> str:
    """The name of a member of an object, as the most careless reader would know it: `customer_id` is `customerId` too."""
    return _loose(name) if len(name) <= MOST else name


def varied(members: Mapping[str, Any], name: str) -> bool:
    """Whether an object has another member that some reader takes for this one."""
    if len(members) == (name in members):
        return False
    wanted = loose(name)
    for other in members:
        if other != name and loose(other) == wanted:
            return True
    return False
