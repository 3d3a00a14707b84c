"""URIs as servers may resolve them (pure): a policy decides about a name, and a server opens what it makes of it.

A resource's name is sent in its normal form or it is refused: what some server would resolve to another spelling (`..`, `//`, `%2e`,
an escaped letter, a backslash, `file://host/...`) is `ambiguous`. What is left can still be read in more than one way that no
server is wrong about: escapes decoded, case folded on some file systems, a query or a fragment left away. Rules that deny look at
all of these `readings`; rules that allow at the name as it is spelled, and at `shortened`, what is left of it where their
pattern does not speak of the rest.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address
from typing import Final
from urllib.parse import unquote_to_bytes

from policies.engine import glob
from policies.engine.folding import fold
from policies.vocabulary import UNSEEN

__all__ = ["ambiguous", "decoded", "matcher", "odd_path", "odd_segment", "readings", "shortened"]

LONGEST: Final = 8192  # characters of a URI; what is longer is not looked into, and refused
_URI: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):(?P<slashes>/*)(?P<authority>[^/?#]*)")
_ESCAPE: Final = re.compile(r"%[0-9A-Fa-f]{2}")
# Refused as escapes: what never needs one (letters, digits, - . _ ~), controls, backslash; and lower-case digits.
_NEEDLESS: Final = r"%(?:[01]|2[DE]|3[0-9]|4[1-9A-F]|5[0-9ACF]|6[1-9A-F]|7[0-9AEF])"
_WRONG_ESCAPE: Final = re.compile(rf"%(?![0-9A-F]{{2}})|{_NEEDLESS}")
_NEEDLESS_ESCAPE: Final = re.compile(
    rf"{_NEEDLESS}|%u[0-9A-F]{{4}}", re.I
)  # the latter is what some servers read as well
_UNSENT: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\\\u2028\u2029\ufffe\uffff\ud800-\udfff]|^\s|\s\Z")
# Slashes and backslashes that Windows makes of other characters when it narrows a name to a code page.
_SLASH_ALIKE: Final = re.compile("[\u2044\u2215\u2216\u29f5\u29f8\u29f9]")
_STRUCTURE: Final = re.compile(r"[/\\%?#]")
_STREAM: Final = re.compile(r":\$(?:[A-Z]{4}|I30)", re.I)
_SHORT_NAME: Final = re.compile(r"[^.]{1,6}~[0-9]{1,5}(?:\.[^.]{0,3})?\Z")
_HOST: Final = re.compile(r"(?:\{[A-Za-z0-9_]+\}|[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?\Z")
_RESTS: Final = {"?": re.compile(r"\?.*", re.S), "#": re.compile(r"#.*", re.S), ";": re.compile(r";[^/?#]*")}
_DEFAULT_PORT: Final = {"http": "80", "https": "443", "ws": "80", "wss": "443", "ftp": "21"}


def decoded(text: str) -> str:
    """The text with its escapes resolved, once; bytes that are no UTF-8 stay visible as replacement characters."""
    return unquote_to_bytes(text.encode("utf-8", "surrogatepass")).decode("utf-8", "replace") if "%" in text else text


def odd_segment(segment: str, *, file: bool = True) -> bool:
    """Whether a part of a path means another one somewhere: all dots, a dot or space at its end, parameters alone, a stream of a
    file; and, of a file's path, a short name of Windows.
    """
    bare = segment.partition(";")[0]
    return (
        bare == ""
        or bare[-1] in " ."
        or bare[0] == " "
        or _STREAM.search(segment) is not None
        or (file and _SHORT_NAME.match(segment) is not None)
    )


def ambiguous(uri: str) -> bool:
    """Whether some server would resolve this name to one that it does not spell."""
    if len(uri) > LONGEST or _UNSENT.search(uri) is not None or _WRONG_ESCAPE.search(uri) is not None:
        return True
    plain = _plain(uri)
    return plain is None or _odd_place(uri) or _odd_path(plain)


def odd_path(path: str) -> bool:
    """Whether some server would open another file by this path, which is no URI and has no `.` or `..` in it."""
    if _UNSENT.search(path) is not None or _NEEDLESS_ESCAPE.search(path) is not None:
        return True
    plain = _plain(path)
    return plain is None or any(odd_segment(re.split("[?#]", part)[0] or "-") for part in plain.split("/") if part)


def _plain(text: str) -> str | None:
    """The text as a server might compare it: escapes resolved, wide characters narrowed, what cannot be seen left away; None
    where that would bring forth another structure.
    """
    plain = text
    if "%" in text:
        try:
            plain = unquote_to_bytes(text.encode()).decode("utf-8", "strict")
        except UnicodeDecodeError:
            return None
        if _ESCAPE.search(plain) is not None or _UNSENT.search(plain) is not None:
            return None
    if plain.isascii():
        return plain
    wide = unicodedata.normalize("NFKC", plain)
    if _SLASH_ALIKE.search(plain) or len(_STRUCTURE.findall(wide)) != len(_STRUCTURE.findall(plain)):
        return None
    return "".join(c for c in wide if unicodedata.category(c) != "Cf")


def _odd_place(uri: str) -> bool:
    """Whether scheme, slashes or authority are not written as every server reads them."""
    found = _URI.match(uri)
    if found is None:
        return False
    scheme, slashes, authority = found["scheme"], found["slashes"], found["authority"]
    if scheme != scheme.lower() or len(slashes) == 1 or len(slashes) > 3:
        return True
    if scheme == "file":
        # A path from the root, and nothing that a reader could take for a host, a query or an escaped part of the structure.
        rooted = len(slashes) == 3 or re.fullmatch(r"file://\{[^{}/]*\}", uri) is not None  # or a whole template
        return not rooted or re.search(r"[?#]|%(?:2F|3F|23|3B)|^file:///[A-Za-z]\|", uri) is not None
    if scheme in _DEFAULT_PORT:
        host, _, port = authority.rpartition(":") if not authority.endswith("]") else (authority, "", "")
        host = host or authority
        followed = uri[found.end() : found.end() + 1] in ("?", "#")  # `http://host?x` is `http://host/?x`
        return (
            followed
            or len(slashes) != 2
            or _HOST.match(authority) is None
            or port == _DEFAULT_PORT[scheme]
            or _odd_number(host)
        )
    return len(slashes) == 2 and ("@" in authority or re.search(r":(?:0[0-9]*)?\Z", authority) is not None)


def _odd_number(host: str) -> bool:
    """Whether a host ends like an address but is not written as one: `0x7f.1`, `127.1`, `2130706433`."""
    last = host.rpartition(".")[2]
    if host.startswith("[") or not (last.isdigit() or re.match(r"0x[0-9a-f]*\Z", last)):
        return False
    try:
        return str(IPv4Address(host)) != host
    except AddressValueError:
        return True


def _odd_path(plain: str) -> bool:
    """Whether the path has a part that servers resolve away."""
    found = _URI.match(plain)
    if found is None:
        path, file = plain.removeprefix("/"), True
    else:
        path, file = plain[found.end("slashes") :], found["scheme"] == "file"
    end = re.search(r"[?#]|\Z", path)
    place, rest = (path[: end.start()], path[end.start() :]) if end is not None else (path, "")
    return (
        "//" in place
        or place.startswith("/")
        or any(odd_segment(part, file=file) for part in place.split("/") if part)
        or any(part.partition(";")[0] in (".", "..") for part in rest.split("/"))
    )


@lru_cache(maxsize=512)
def readings(uri: str) -> tuple[str, ...]:
    """What a server could take this name for, folded as patterns of denying rules are."""
    found = _URI.match(uri)
    if found is not None and found["scheme"] in _DEFAULT_PORT and found.end() == len(uri):
        uri += "/"
    return _short(dict.fromkeys(fold(decoded(each)) for each in (uri, *_loose(uri))))


def _loose(uri: str) -> list[str]:
    """What servers take a name for that cut its scheme off as text: with other slashes behind it, without port, as a path alone."""
    found = _URI.match(uri)
    if found is None:
        return [f"file:///{uri.lstrip('/')}"]
    scheme, authority = found["scheme"], found["authority"]
    if scheme == "file" or scheme in _DEFAULT_PORT:
        return []
    rests = [uri[found.start("authority") :]]
    if (port := re.search(r":[0-9]+\Z", authority)) is not None:
        rests.append(authority[: port.start()] + uri[found.end() :])
    return [f"{scheme}:{slashes}{rest}" for rest in rests for slashes in ("", "//", "///")]


def _short(found: dict[str, None]) -> tuple[str, ...]:
    """Texts, and what is left of them without query and fragment, parameters, and slash at the end."""
    for text in list(found):
        if "?" in text or "#" in text:
            found.setdefault(re.split(r"[?#]", text, maxsplit=1)[0])
            found.setdefault(text.partition("#")[0])
    if any(";" in text for text in found):
        found.update(dict.fromkeys([re.sub(r";[^/?#]*", "", each) for each in found]))
    found.update(dict.fromkeys([each.rstrip("/") for each in found if each.endswith("/")]))
    return tuple(found)


def matcher(pattern: str) -> Callable[[str, str], bool]:
    """Compile a pattern to a function from a kind and a name to yes or no; a URI, and the name of a tool that another one
    reads, match as anything that they may be read as.
    """
    exact, folded = glob.matcher(pattern), glob.matcher(fold(decoded(pattern)))

    def match(kind: str, name: str) -> bool:
        if exact(name) or len(name) > LONGEST:
            return exact(name)
        return any(map(folded, readings(name))) if kind == "resource" else kind == UNSEEN and folded(fold(name))

    return match


def shortened(uri: str, pattern: str) -> tuple[str, ...]:
    """What is left of a name where a server looks past what the pattern of an allowing rule does not speak of."""
    found = [uri, decoded(uri)] if "%" in uri and "%" not in pattern else [uri]
    for mark, rest in _RESTS.items():
        if mark not in pattern:
            found += [rest.sub("", text) for text in found if mark in text]
    return tuple(found[1:])
