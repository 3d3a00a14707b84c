"""Charts drawn by the server as SVG without inline styles; the words around them are HTML, so they stay legible when narrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe

WIDTH, HEIGHT = 1000, 180


@dataclass(frozen=True, slots=True)
class Bar:
    """One bucket of a stacked chart: its parts by series, where a click leads, and what it is called."""

    parts: Mapping[str, int]
    link: str
    label: str

    @property
    def total(self) -> int:
        return sum(self.parts.values())


def ceiling(value: int) -> int:
    """Return the next round number, for the axis."""
    if value <= 5:
        return max(value, 1)
    size = 10 ** (len(str(value)) - 1)
    return next(int(size * step) for step in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if size * step >= value)


def stacked(bars: Sequence[Bar], series: Sequence[str], label: str) -> SafeString:
    """Draw stacked bars; each is a link to the events behind it."""
    top = ceiling(max((bar.total for bar in bars), default=0))
    step = WIDTH / max(len(bars), 1)
    shapes: list[str] = [
        format_html('<line class="grid" x1="0" x2="{}" y1="{}" y2="{}"/>', WIDTH, y, y)
        for y in (0.5, HEIGHT / 2, HEIGHT - 0.5)
    ]
    # Hundreds of shapes: put together by hand, since all but link and label are numbers and names of ours.
    for place, bar in enumerate(bars):
        x, y = place * step, float(HEIGHT)
        pieces = []
        for name in series:
            height = bar.parts.get(name, 0) / top * HEIGHT
            if height:
                # Something that happened is seen, however little it was beside the rest.
                height = max(height, 1.5)
                y -= height
                pieces.append(
                    f'<rect class="c-{name}" x="{x + step * 0.1:.2f}" y="{max(y, 0):.2f}"'
                    f' width="{step * 0.8:.2f}" height="{height:.2f}"/>'
                )
        # A hundred stops would make the keyboard's way through the page long; the table behind has the same links.
        shapes.append(
            f'<a href="{escape(bar.link)}" tabindex="-1"><title>{escape(bar.label)}</title>{"".join(pieces)}'
            f'<rect class="hit" x="{x:.2f}" y="0" width="{step:.2f}" height="{HEIGHT}"/></a>'
        )
    return format_html(
        '<svg class="chart bars" viewBox="0 0 {} {}" preserveAspectRatio="none" role="group" aria-label="{}">{}</svg>',
        WIDTH,
        HEIGHT,
        label,
        _join(shapes),
    )


def meter(share: float, colour: str = "accent") -> SafeString:
    width = max(0.0, min(share, 1.0)) * 100
    return format_html(
        '<svg viewBox="0 0 100 5" preserveAspectRatio="none" aria-hidden="true"><rect class="track" width="100" height="5"/>'
        '<rect class="c-{}" width="{}" height="5"/></svg>',
        colour,
        f"{width:.2f}",
    )


def _join(parts: Sequence[str]) -> SafeString:
    return mark_safe("".join(parts))  # noqa: S308 - every part was escaped when it was made
