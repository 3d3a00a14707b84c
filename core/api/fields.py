"""Members of requests, typed exactly as described: a number is no text, and what is not known is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from ipaddress import ip_network
from typing import Any

from django.utils.dateparse import parse_datetime
from rest_framework import serializers

__all__ = [
    "Bool",
    "Char",
    "Choice",
    "Moment",
    "Network",
    "Number",
    "Pattern",
    "Strict",
    "WholeNumber",
    "read",
    "read_moment",
]


class Strict(serializers.Serializer[Any]):
    """An object all of whose members are known and may be set."""

    def to_internal_value(self, data: Any) -> Any:
        """Refuse strangers before anything else."""
        if isinstance(data, Mapping):
            known = {name for name, field in self.fields.items() if not field.read_only}
            strangers = [name for name in data if name not in known]
            if strangers:
                fixed = set(self.fields)
                raise serializers.ValidationError(
                    {
                        str(name)[:100]: serializers.ErrorDetail(
                            "This cannot be set." if name in fixed else "There is no such member.",
                            code="read_only" if name in fixed else "unknown_member",
                        )
                        for name in strangers[:20]
                    }
                )
        return super().to_internal_value(data)


def read(kind: type[serializers.Serializer[Any]], data: Any, *, partial: bool = False) -> dict[str, Any]:
    """Read a body into plain values, or refuse it member by member."""
    serializer = kind(data=data)
    if partial:
        # Only at the top: what is given is given whole, its own members and their defaults included.
        for field in serializer.fields.values():
            field.required = False
    serializer.is_valid(raise_exception=True)
    found: dict[str, Any] = serializer.validated_data
    return {name: value for name, value in found.items() if not partial or name in data}


class Char(serializers.CharField):
    """Text, as it is."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("trim_whitespace", False)
        if not kwargs.get("allow_blank"):
            kwargs.setdefault("min_length", 1)
        super().__init__(**kwargs)

    def to_internal_value(self, data: Any) -> str:
        """Accept text alone."""
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class Pattern(serializers.RegexField):
    """Text of a certain form."""

    def to_internal_value(self, data: Any) -> str:
        """Accept text alone."""
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class WholeNumber(serializers.IntegerField):
    """A whole number."""

    def to_internal_value(self, data: Any) -> int:
        """Accept numbers alone."""
        if isinstance(data, bool) or not isinstance(data, int | float) or data != data // 1:
            self.fail("invalid")
        return int(data)


class Number(serializers.FloatField):
    """A number."""

    def to_internal_value(self, data: Any) -> float:
        """Accept numbers alone."""
        if isinstance(data, bool) or not isinstance(data, int | float):
            self.fail("invalid")
        return super().to_internal_value(data)


class Bool(serializers.BooleanField):
    """True or false."""

    def to_internal_value(self, data: Any) -> bool:
        """Accept these two alone."""
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class Choice(serializers.ChoiceField):
    """One word of a list."""

    def to_internal_value(self, data: Any) -> Any:
        """Accept text alone."""
        if not isinstance(data, str):
            self.fail("invalid_choice", input=str(data)[:60])
        return super().to_internal_value(data)


class Moment(serializers.DateTimeField):
    """A moment as RFC 3339, with its offset."""

    default_error_messages = {"invalid": "A moment is like 2026-12-24T18:00:00Z, with its offset."}

    def to_internal_value(self, value: Any) -> datetime:
        """Accept text alone."""
        found = read_moment(value)
        if found is None:
            self.fail("invalid", format="RFC 3339")
        return found


def read_moment(value: Any) -> datetime | None:
    """Read RFC 3339; None for anything else."""
    if not isinstance(value, str) or len(value) > 40 or "T" not in value.upper():
        return None
    try:
        found = parse_datetime(value.upper())
    except ValueError:
        return None
    if found is None or found.tzinfo is None or not 1970 <= found.year < 9000:
        return None
    return found


class Network(Char):
    """An IP network such as 10.0.0.0/8."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=50, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        try:
            return str(ip_network(text))
        except ValueError as error:
            raise serializers.ValidationError(f"Not an IP network: {error}.") from None
