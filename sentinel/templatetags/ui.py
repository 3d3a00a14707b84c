"""The few components the admin's pages are made of, as template tags. Text from outside is inert in all of them."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from typing import Any

from django import template
from django.templatetags.static import static
from django.utils import timezone
from django.utils.html import conditional_escape, format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from audit.events.act_kinds import kind_of
from sentinel.templatetags import trees

register = template.Library()

# Letters that draw nothing though Unicode counts them as letters or marks.
BLANKS = frozenset("\u115f\u1160\u3164\uffa0\u2800\u034f\u17b4\u17b5\u180b\u180c\u180d\u180e\u180f") | {
    chr(point) for point in (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))
}
NAMES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"}

# outcome -> (colour, icon, word): colour is never the only sign
OUTCOMES = {
    "allowed": ("green", "check", "allowed"),
    "denied": ("red", "ban", "denied"),
    "unauthenticated": ("red", "lock", "unauthenticated"),
    "limited": ("amber", "clock", "limited"),
    "invalid": ("amber", "question", "invalid"),
    "upstream_error": ("violet", "plug", "upstream error"),
    "cancelled": ("grey", "x", "cancelled"),
    "interrupted": ("violet", "cut", "interrupted"),
    "unrecorded": ("red", "gap", "unrecorded"),
    "changed": ("blue", "pencil", "changed"),
}


def _invisible(char: str) -> bool:
    category = unicodedata.category(char)
    return (
        category in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} or (category == "Zs" and char != " ") or char in BLANKS
    )


def escape_char(char: str) -> str:
    return NAMES.get(char, f"U+{ord(char):04X}")


@register.filter
def visible(value: Any, newlines: str = "") -> SafeString:
    """Show text from outside: inert, isolated from its surroundings' direction, with what is invisible made visible."""
    text = "" if value is None else str(value)
    if text.isascii() and text.isprintable():
        return conditional_escape(text)
    parts: list[str] = []
    plain: list[str] = []
    for char in text:
        if char == "\n" and newlines:
            plain.append(char)
        elif _invisible(char):
            if plain:
                parts.append(conditional_escape("".join(plain)))
                plain = []
            parts.append(format_html('<span class="esc" title="invisible character">{}</span>', escape_char(char)))
        else:
            plain.append(char)
    if plain:
        parts.append(conditional_escape("".join(plain)))
    return mark_safe(f'<span class="text">{"".join(parts)}</span>')  # noqa: S308 - every part is escaped above


@register.filter
def plain(value: Any) -> str:
    """Name what is invisible, for places that hold no markup: titles and labels."""
    return "".join(escape_char(char) if _invisible(char) else char for char in str("" if value is None else value))


@register.simple_tag
def icon(name: str, label: str = "") -> SafeString:
    """Draw an icon of the sprite; without a label it is decoration."""
    url = static("sentinel/icons.svg")
    if label:
        return format_html(
            '<svg class="icon" role="img" aria-label="{}"><use href="{}#{}"></use></svg>', label, url, name
        )
    return format_html('<svg class="icon" aria-hidden="true"><use href="{}#{}"></use></svg>', url, name)


@register.simple_tag
def outcome(value: str, failed: bool = False) -> SafeString:
    """Show an outcome by colour, icon and word; what was allowed and `failed` by the tool's own word is no success."""
    if failed and value == "allowed":
        return format_html(
            '<span class="badge amber" title="Allowed; the tool or the upstream itself said that it failed">{}{}</span>',
            icon("warn"),
            "tool error",
        )
    colour, sign, word = OUTCOMES.get(value, ("grey", "question", value))
    return format_html('<span class="badge {}">{}{}</span>', colour, icon(sign), word)


ACTS = {"changed": ("blue", "pencil"), "accessed": ("grey", "events"), "refused": ("red", "ban")}


@register.simple_tag
def event_outcome(event: Any) -> SafeString:
    """Show how an event ended; of an administrator's act whether it changed something, or was refused."""
    kind = kind_of(event.outcome, event.method, event.status_code)
    if not kind:
        return outcome(event.outcome, event.failed if hasattr(event, "failed") else event.tool_error)
    colour, sign = ACTS[kind]
    return format_html('<span class="badge {}">{}{}</span>', colour, icon(sign), kind)


@register.simple_tag
def badge(text: Any, colour: str = "", sign: str = "") -> SafeString:
    return format_html(
        '<span class="badge {} {}">{}{}</span>',
        colour,
        "" if sign else "plain",
        icon(sign) if sign else "",
        visible(text),
    )


@register.simple_tag
def when(value: datetime | None, form: str = "full") -> SafeString | str:
    """Show a moment unambiguously, in the viewer's zone, with the exact UTC time at hand."""
    if value is None:
        return "–"
    local = timezone.localtime(value)
    text = {
        "full": f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03d} {local:%Z}",
        "row": f"{local:%m-%d %H:%M:%S}" if local.year == timezone.localtime().year else f"{local:%Y-%m-%d %H:%M}",
        "clock": f"{local:%H:%M:%S}.{local.microsecond // 1000:03d}",
        "minute": f"{local:%Y-%m-%d %H:%M} {local:%Z}",
        "day": f"{local:%Y-%m-%d}",
    }[form]
    utc = value.astimezone(UTC)
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        value.isoformat(),
        f"{local:%A} {local:%Y-%m-%d %H:%M:%S %Z}; {utc:%H:%M:%S} UTC",
        text,
    )


@register.filter
def ago(value: datetime | None) -> str:
    """Say roughly how long ago, or how soon."""
    if not isinstance(value, datetime):
        return "never"
    seconds = (timezone.now() - value).total_seconds()
    past = seconds >= 0
    seconds = abs(seconds)
    for size, word in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            number = int(seconds // size)
            text = f"{number} {word}{'' if number == 1 else 's'}"
            return f"{text} ago" if past else f"in {text}"
    return "just now" if past else "in less than a minute"


@register.filter
def about(value: int | None) -> str:
    """Say a large number as a person would."""
    number = int(value or 0)
    for size, word in ((1_000_000_000, "billion"), (1_000_000, "million")):
        if number >= size:
            short = f"{number / size:.1f}".rstrip("0").rstrip(".")
            return f"{short} {word}"
    return f"{number:,}".replace(",", "\u2009")


@register.filter
def millis(value: float | None) -> str:
    """Show a latency with as many digits as are worth reading."""
    if value is None:
        return "–"
    if value >= 10_000:
        return f"{value / 1000:.1f} s"
    return f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms" if value >= 1 else f"{value:.2f} ms"


@register.simple_tag
def estimate(value: float | None, exact: bool) -> SafeString | str:
    """Show a percentile, and by a sign that it is not exactly that but near it."""
    if value is None or exact:
        return millis(value)
    return format_html('<span title="Estimated from counts: within 5 %">~ {}</span>', millis(value))


@register.filter
def size(value: int | None) -> str:
    """Show a number of bytes."""
    number = float(value or 0)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return ""


@register.filter
def tree(text: str | None) -> SafeString:
    """Show JSON text as a foldable tree."""
    return trees.render(text, visible)


@register.simple_tag
def copy(text: str, label: str = "Copy") -> SafeString:
    """A button that copies; without scripts it is not shown and the text can be selected."""
    return format_html(
        '<button type="button" class="small" data-copy="{}" hidden>{}<span>{}</span></button>',
        text,
        icon("copy"),
        label,
    )


@register.filter
def joined(values: Any) -> SafeString:
    return format_html_join(", ", "{}", ((visible(value),) for value in values)) if values else SafeString("–")


@register.simple_tag(takes_context=True)
def with_query(context: template.Context, **changes: Any) -> str:
    """Return this page's query with some parameters set, or removed when None."""
    query = context["request"].GET.copy()
    for name, value in changes.items():
        query.pop(name, None)
        if value is not None:
            query[name] = str(value)
    return f"?{query.urlencode()}" if query else "?"
