"""Database columns that keep JSON exactly as it was written."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from django.db import models
from psycopg.types.json import Json

__all__ = ["ExactJSONField", "JSONText"]

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
