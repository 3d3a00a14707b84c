"""JSON as a foldable tree of <details>: numbers as they were written, repeated members kept, hostile text inert."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

DEPTH = 60  # deeper values are shown as text: browsers lay out nested folds slowly
OPEN = 3  # levels that start unfolded
REDACTED = re.compile(r"(\[REDACTED:[a-z0-9_.-]+:[0-9a-f]{8}\])", re.IGNORECASE)

Show = Callable[[str], SafeString]


class _Number(str):
    """A number's own digits."""


class _Members(list[tuple[str, Any]]):
    """An object's members in order."""


def render(text: str | None, show: Show) -> SafeString:
    """Return the tree of a JSON text; text that cannot be read as JSON is shown as it is."""
    if not text:
        return mark_safe('<p class="muted">Nothing was kept.</p>')
    try:
        value = json.loads(
            text, parse_int=_Number, parse_float=_Number, parse_constant=_Number, object_pairs_hook=_Members
        )
    except (ValueError, RecursionError):
        return format_html('<pre class="code wrap">{}</pre>', show(text))
    return format_html('<div class="tree">{}</div>', _node("", value, 0, show))


def _node(label: str, value: Any, depth: int, show: Show) -> SafeString:
    key = format_html('<span class="k">{}</span>: ', show(label)) if label else SafeString("")
    if isinstance(value, _Members | list) and value and depth < DEPTH:
        named = isinstance(value, _Members)
        items = value if named else [(str(number), item) for number, item in enumerate(value)]
        children = mark_safe("".join(_node(name or '""', item, depth + 1, show) for name, item in items))  # noqa: S308
        about = f"{len(items)} {'member' if named else 'item'}{'' if len(items) == 1 else 's'}"
        opened = SafeString(" open") if depth < OPEN else SafeString("")
        return format_html(
            '<details{}><summary>{}<span class="z">{} {}</span></summary>{}</details>',
            opened, key, "{}" if named else "[]", about, children,
        )  # fmt: skip
    return format_html('<div class="leaf">{}{}</div>', key, _scalar(value, show))


def _scalar(value: Any, show: Show) -> SafeString:
    if isinstance(value, _Number):
        return format_html('<span class="n">{}</span>', show(value))
    if isinstance(value, str):
        return format_html('<span class="s">&quot;{}&quot;</span>', marked(value, show))
    if value is None or isinstance(value, bool):
        return format_html('<span class="b">{}</span>', {None: "null", True: "true", False: "false"}[value])
    if value in ([], _Members()):
        return format_html('<span class="z">{}</span>', "{}" if isinstance(value, _Members) else "[]")
    return format_html('<span class="z">deeper than {} levels</span>', DEPTH)


def marked(text: str, show: Show) -> SafeString:
    parts = [
        format_html('<span class="redacted" title="A secret stood here">{}</span>', part) if number % 2 else show(part)
        for number, part in enumerate(REDACTED.split(text))
        if part
    ]
    return mark_safe("".join(parts))  # noqa: S308 - every part is escaped
