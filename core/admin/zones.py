"""The choice of a time zone, in forms."""

from __future__ import annotations

from functools import cache
from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.forms.utils import flatatt
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

__all__ = ["ZoneField"]


@cache
def _choices() -> list[tuple[str, str]]:
    return [("UTC", "UTC"), *((zone, zone) for zone in sorted(available_timezones()) if zone != "UTC")]


class _ZoneSelect(forms.Select):
    """A list of six hundred options: drawn by Django's templates, one by one, it would take most of its page's time."""

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:
        chosen = str(value or "")
        options = format_html_join(
            "", '<option value="{}"{}>{}</option>',
            ((zone, SafeString(" selected") if zone == chosen else "", label) for zone, label in _choices()),
        )  # fmt: skip
        about = {**self.build_attrs(self.attrs, attrs), "name": name}
        return format_html("<select{}>{}</select>", SafeString(flatatt(about)), options)


class ZoneField(forms.ChoiceField):
    """A time zone by name."""

    widget = _ZoneSelect

    def __init__(self, **options: Any) -> None:
        super().__init__(choices=_choices, **options)
