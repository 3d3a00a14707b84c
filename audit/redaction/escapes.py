"""How characters that cannot be seen are shown (pure).

A control, bidirectional or invisible character, a lone surrogate, NUL: each is written `\\u{202E}`. Text that looks like such
an escape has its backslash escaped the same way (`\\u{5C}u{202E}`), so what a reader sees can only mean one thing:

    >>> escape("a\\u202eb"), escape("a\\\\u{202E}b")
    ('a\\\\u{202E}b', 'a\\\\u{5C}u{202E}b')
    >>> unescape(escape("a\\u202eb\\\\u{0}"))  == "a\\u202eb\\\\u{0}"
    True
"""

from __future__ import annotations

import re

import re2

from audit.redaction.detect.automata import finder

__all__ = ("NEEDS_ESCAPE", "escape", "escape_line", "hides", "unescape", "visible")

# Control (but tab and line breaks), format, surrogate and non-characters, fillers, selectors and blanks drawn as nothing.
# Written out, since the answer must not change with the Unicode version of the interpreter; a test compares it with that.
_RANGES = """
    0-8 B-C E-1F 7F-9F AD 34F 600-605 61C 6DD 70F 890-891 8E2 115F-1160 17B4-17B5 180B-180F 200B-200F 2028-202E
    2060-206F 2800 3164 D800-DFFF FDD0-FDEF FEFF FFA0 FFF0-FFFB FFFE-FFFF 110BD 110CD 13430-13438 1BCA0-1BCA3
    1D159 1D173-1D17A 1FFFE-1FFFF 2FFFE-2FFFF 3FFFE-3FFFF 4FFFE-4FFFF 5FFFE-5FFFF 6FFFE-6FFFF 7FFFE-7FFFF
    8FFFE-8FFFF 9FFFE-9FFFF AFFFE-AFFFF BFFFE-BFFFF CFFFE-CFFFF DFFFE-E0FFF EFFFE-EFFFF FFFFE-FFFFF
    10FFFE-10FFFF
"""


def _class(ranges: str, point: str) -> str:
    """Write a class of characters, given how a pattern language writes a code point."""
    ends = [part.partition("-")[::2] for part in ranges.split()]
    return "".join(point % int(a, 16) + (f"-{point % int(b, 16)}" if b else "") for a, b in ends)


_HIDDEN = _class(_RANGES, r"\U%08x")
_BACKSLASH_OF_ESCAPE = r"\\(?=u\{)"
# In payloads line breaks and tabs are text (JSON writes them as escapes); in names they are not.
NEEDS_ESCAPE = re.compile(f"[{_HIDDEN}]|{_BACKSLASH_OF_ESCAPE}")
_LINE = re.compile(
    f"[{_HIDDEN}\\t\\n\\r\\u00a0\\u2000-\\u200a\\u202f\\u205f\\u3000\\ufe00-\\ufe0f]|{_BACKSLASH_OF_ESCAPE}"
)
# The same for text that was escaped before: what looks like an escape is one.
_AGAIN = re.compile(f"[{_HIDDEN}]")
# The same in RE2, which is twenty times as fast on a class of so many ranges.
_RE2_POINT = r"\x{%x}"
_WITHOUT_SURROGATES = _RANGES.replace("D800-DFFF", "")
_HIDES = finder(re2.compile(f"[{_class(_WITHOUT_SURROGATES, _RE2_POINT)}]|" + r"\\u\{"))
_ESCAPED = re.compile(r"\\u\{([0-9A-F]{1,6})\}")


def _shown(match: re.Match[str]) -> str:
    return f"\\u{{{ord(match[0]):X}}}"


def escape(text: str, *, again: bool = False) -> str:
    """Escape what cannot be seen; line breaks and tabs stay. `again`: the text was escaped before."""
    return (_AGAIN if again else NEEDS_ESCAPE).sub(_shown, text)


def escape_line(text: str) -> str:
    """Escape what cannot be seen or would break a line, blanks that are not spaces among it: for names and addresses."""
    return _LINE.sub(_shown, text)


def unescape(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)


def visible(text: str) -> str:
    """Leave out what cannot be seen: how the text reads to a person."""
    return _AGAIN.sub("", text)


def hides(encoded: bytes) -> bool:
    """Whether UTF-8 holds anything that cannot be seen, or looks like its escape."""
    return bool(_HIDES(encoded, 0, len(encoded))[0][1] >= 0)
