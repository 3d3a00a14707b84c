"""Database columns of our own: JSON kept exactly as it was written, and IP networks that PostgreSQL itself checks."""

from __future__ import annotations

import json
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Any, NamedTuple

from django import forms
from django.core.exceptions import ValidationError
from django.db import models
from psycopg.types.json import Json

__all__ = ["ExactJSONField", "JSONText", "NetworkField"]

# Python refuses to read longer integers; such a number stays text rather than make a stored event unreadable.
LONGEST_INTEGER = 4000


def loads(text: str) -> Any:
    """Read stored JSON; never fails on a number that is too long."""
    return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < LONGEST_INTEGER else digits)


class JSONText(NamedTuple):
    """JSON that is text already, to be stored as it is."""

    json: str


class ExactJSONField(models.JSONField):
    """A `json` (not `jsonb`) column: numbers, order and spacing stay as they were, so that digests can be computed again.

    Read as a parsed value; `Cast(field, TextField())` gives the exact text. Written from any JSON value, or from an object with a
    `json` attribute that holds JSON text.
    """

    def db_type(self, connection: Any) -> str:
        """Name the column's type."""
        return "json"

    def get_internal_type(self) -> str:
        """Name the field's kind; Django's own JSON field adds the checks of `jsonb` to its name."""
        return "ExactJSONField"

    def select_format(self, compiler: Any, sql: str, params: Any) -> tuple[str, Any]:
        """Fetch the text, because the driver would parse a `json` column itself."""
        return f"({sql})::text", params

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Parse what the database kept."""
        if not isinstance(value, str):
            return value
        try:
            return loads(value)
        except ValueError:
            return value

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        """Hand over the text itself, where there is one."""
        if value is None:
            return None
        if hasattr(value, "as_sql"):
            return value
        text = getattr(value, "json", None)
        if not isinstance(text, str):
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), cls=self.encoder)
        return Json(text, dumps=str)


if TYPE_CHECKING:
    _Field = models.Field[Any, str]
else:
    _Field = models.Field


class NetworkField(_Field):
    """An IPv4 or IPv6 network, a string such as `10.0.0.0/8` in Python and `cidr` in PostgreSQL."""

    description = "IP network"

    def db_type(self, connection: Any) -> str:
        """Name the column's type."""
        return "cidr"

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> str | None:
        """Give what is stored as text."""
        return None if value is None else str(value)

    def to_python(self, value: Any) -> str | None:
        """Accept text or a network, refuse host bits and anything else."""
        if value is None or value == "":
            return None
        if isinstance(value, IPv4Network | IPv6Network):
            return str(value)
        try:
            return str(ip_network(str(value).strip()))
        except ValueError as error:
            raise ValidationError(f"{value!s:.60} is not an IP network: {error}") from error

    def get_prep_value(self, value: Any) -> str | None:
        return self.to_python(value)

    def formfield(self, **kwargs: Any) -> Any:
        return super().formfield(**{"form_class": forms.CharField, **kwargs})
