"""What upstreams define (pure): canonical form and hash of a tool, prompt or resource, and what to look at in it.

The hash covers the whole definition, whatever members it has: names, description, schemas, annotations, _meta. Two
definitions have the same hash exactly when they are the same JSON value (members in any order).
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import unicodedata
from dataclasses import dataclass, field
from typing import Any

from proxy.mcp.mirrors import ParamHeader

#: the list method of each kind: (method, member of its result, member that names an item)
LISTS = {
    "tool": ("tools/list", "tools", "name"),
    "prompt": ("prompts/list", "prompts", "name"),
    "resource": ("resources/list", "resources", "uri"),
    "template": ("resources/templates/list", "resourceTemplates", "uriTemplate"),
}
MAX_NAME_BYTES = 1024
MAX_DEFINITION_BYTES = 256 * 1024
LONG_TEXT = 4000

_INSTRUCTIONS = re.compile(
    r"<\s*/?\s*(important|system|instructions?|secret|assistant|user)\s*>"
    r"|\b(ignore|disregard|forget)\b.{0,40}\b(previous|prior|above|earlier|all)\b.{0,40}\b(instructions?|rules|prompts?)\b"
    r"|\b(do not|don't|never)\b.{0,30}\b(tell|mention|inform|reveal|show)\b.{0,30}\b(the )?user\b"
    r"|\byou (must|should) (always |first )?(call|use|read|send|pass|include)\b"
    r"|\bbefore (using|calling) (this|any other) tool\b"
    r"|\b(id_rsa|\.ssh/|\.env\b|/etc/passwd|mcp\.json)\b",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Definition:
    """What the gateway knows of one item when it decides about a call."""

    kind: str
    name: str
    hash: str
    pinned_hash: str
    #: pinned, new, changed or quarantined
    status: str
    annotations: dict[str, Any] = field(default_factory=dict)
    #: arguments that a modern call mirrors in headers
    mirrored: tuple[ParamHeader, ...] = ()

    @property
    def blocked(self) -> bool:
        """Tell whether it may not be used until somebody approves it."""
        return self.status == "quarantined"


def canonical(definition: Any) -> str:
    """Write a definition in the one form that is hashed, stored and compared: sorted, compact, ASCII."""
    return json.dumps(definition, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def status_of(hash_: str, pinned_hash: str, policy: str, *, first_read: bool = False) -> str:
    """Say what a definition counts as; the first list of an upstream that allows is taken on trust."""
    if hash_ == pinned_hash:
        return "pinned"
    if policy == "quarantine":
        return "quarantined"
    if pinned_hash:
        return "changed"
    return "pinned" if first_read else "new"


def flags(definition: Any) -> list[str]:
    """List what a person should look at before approving: hidden text, control characters, words meant for the model."""
    found: dict[str, None] = {}
    stack: list[tuple[str, Any, int]] = [("", definition, 0)]
    while stack:
        path, value, depth = stack.pop()
        if isinstance(value, str):
            for flag in _text_flags(value):
                found[f"{path or '/'}: {flag}"] = None
        elif depth < 64 and isinstance(value, dict):
            for key, member in value.items():
                for flag in _text_flags(str(key)):
                    found[f"{path}/ (a member's name): {flag}"] = None
                stack.append((f"{path}/{visible(str(key))[:60]}", member, depth + 1))
                if key == "$ref" and isinstance(member, str) and not member.startswith("#"):
                    found[f"{path}/$ref: refers to something outside, which is never fetched"] = None
        elif depth < 64 and isinstance(value, list):
            for index, member in enumerate(value[:10_000]):
                stack.append((f"{path}/{index}", member, depth + 1))
        if len(found) >= 50:
            break
    return sorted(found)


def _text_flags(text: str) -> list[str]:
    result = []
    hidden = sorted({kind for char in text if (kind := hidden_kind(char))})
    result += [f"hidden characters ({kind})" for kind in hidden]
    if len(text) > LONG_TEXT:
        result.append(f"very long text ({len(text)} characters)")
    if _INSTRUCTIONS.search(text[:20_000]):
        result.append("words that read like instructions to a model")
    return result


def hidden_kind(char: str) -> str:
    """Name what makes a character invisible or misleading, "" when nothing does."""
    code = ord(char)
    if code < 0x20:
        return "" if char in "\t\n\r" else "escape" if code == 0x1B else "control"
    if code < 0x7F:
        return ""
    if 0xE0000 <= code <= 0xE007F:
        return "tag"
    if 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF:
        return "" if code == 0xFE0F else "variation selector"  # FE0F only picks an emoji's coloured form
    if 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069:
        return "text direction"
    category = unicodedata.category(char)
    if category == "Cf" or char in "\u115f\u1160\u3164\uffa0\u2800\u034f\u17b4\u17b5":
        return "zero-width"
    if category in ("Cc", "Cs", "Co", "Cn", "Zl", "Zp"):
        return {"Cc": "control", "Cs": "surrogate", "Co": "private use", "Cn": "unassigned"}.get(category, "separator")
    return ""


def visible(text: str) -> str:
    """Write text so that nothing in it stays invisible: hidden characters as <U+XXXX>."""
    return "".join(f"<U+{ord(char):04X}>" if hidden_kind(char) else char for char in text)


def diff(before: str, after: str) -> list[str]:
    """Give a readable difference of two canonical definitions, line by line, invisible characters shown."""

    def lines(text: str) -> list[str]:
        if not text:
            return []
        pretty = json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False)
        # line breaks inside strings are escaped by JSON, so each line is one value
        return [visible(line) for line in pretty.split("\n")]

    return [
        line
        for line in difflib.unified_diff(lines(before), lines(after), "approved", "now", lineterm="", n=3)
        if line not in ("--- approved", "+++ now") or before
    ]
