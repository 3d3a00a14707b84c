"""What someone looks for in the log: read from a query, written back to one, shown as chips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.http import QueryDict
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from audit.ids import uuid7_floor
from audit.models import Outcome

__all__ = ["FIELDS", "PRESETS", "Chip", "Filters"]

PRESETS: dict[str, tuple[str, timedelta | None]] = {
    "15m": ("15 min", timedelta(minutes=15)),
    "1h": ("1 h", timedelta(hours=1)),
    "24h": ("24 h", timedelta(hours=24)),
    "7d": ("7 days", timedelta(days=7)),
    "30d": ("30 days", timedelta(days=30)),
    "": ("All", None),
}
# Parameter -> (label, column). Values of one parameter are alternatives, parameters hold together.
FIELDS: dict[str, tuple[str, str]] = {
    "key": ("key", "api_key_id"),
    "prefix": ("key prefix", "key_prefix"),
    "role": ("role", "role"),
    "upstream": ("upstream", "upstream"),
    "tool": ("tool", "tool_name"),
    "outcome": ("outcome", "outcome"),
    "reason": ("reason", "reason"),
    "method": ("method", "method"),
    "status": ("status", "status_code"),
    "auth": ("credential in", "auth_method"),
    "ip": ("address", "client_ip"),
    "session": ("session", "session"),
    "rpc": ("JSON-RPC id", "rpc_id"),
    "rule": ("rule", "rule"),
    "slower": ("slower than", "latency_ms"),
}
INDEXED = ("key", "tool", "outcome")
MAX_VALUES = 20
LONGEST = 300


@dataclass(frozen=True, slots=True)
class Chip:
    """One condition in force: what it says, and the query without it."""

    label: str
    value: str
    without: str


@dataclass(frozen=True, slots=True)
class Filters:
    """The conditions on a view of the log."""

    preset: str = ""
    start: datetime | None = None
    end: datetime | None = None
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    text: str = ""
    problems: tuple[str, ...] = ()

    @classmethod
    def read(cls, query: QueryDict, names: Mapping[str, str] | None = None) -> Filters:
        """Read a query; what cannot be understood is said, never silently dropped.

        `names` maps names of keys to their ids, because ids are what is indexed.
        """
        problems: list[str] = []
        preset = query.get("range", "")
        if preset not in PRESETS:
            problems.append("That time range is not known.")
            preset = ""
        values: dict[str, tuple[str, ...]] = {}
        for name in FIELDS:
            wanted = []
            for value in query.getlist(name)[:MAX_VALUES]:
                value = value.strip().replace("\0", "")[:LONGEST]
                if not value:
                    continue
                problem, value = _checked(name, value, names or {})
                if problem:
                    problems.append(problem)
                elif value not in wanted:
                    wanted.append(value)
            if wanted:
                values[name] = tuple(wanted)
        start = _moment(query.get("from", ""), problems)
        end = _moment(query.get("to", ""), problems)
        if start and end and start >= end:
            problems.append("The start of the time range lies after its end.")
        text = query.get("q", "").strip().replace("\0", "")[:200]
        return cls("" if start or end else preset, start, end, values, text, tuple(problems))

    @property
    def empty(self) -> bool:
        """Whether nothing narrows the view."""
        return not (self.preset or self.start or self.end or self.values or self.text)

    def bounds(self, now: datetime | None = None) -> tuple[UUID | None, UUID | None]:
        """Return the range of ids that the time range means: [first, last)."""
        start, end = self.start, self.end
        span = PRESETS[self.preset][1]
        if span is not None:
            start = (now or timezone.now()) - span
        return (uuid7_floor(start) if start else None, uuid7_floor(end) if end else None)

    def pairs(self) -> list[tuple[str, str]]:
        """Return the conditions as pairs of a query."""
        found = []
        if self.preset:
            found.append(("range", self.preset))
        if self.start:
            found.append(("from", _form(self.start)))
        if self.end:
            found.append(("to", _form(self.end)))
        found += [(name, value) for name in FIELDS for value in self.values.get(name, ())]
        if self.text:
            found.append(("q", self.text))
        return found

    def query(self, **more: Any) -> str:
        """Return the conditions as a query string; `more` is added."""
        pairs = [*self.pairs(), *((name, str(value)) for name, value in more.items() if value is not None)]
        return f"?{urlencode(pairs)}" if pairs else "?"

    def describe(self) -> dict[str, Any]:
        """Return the conditions as the event of an export or a look at payloads keeps them."""
        found: dict[str, Any] = {name: list(values) for name, values in self.values.items()}
        if self.text:
            found["q"] = self.text
        if self.preset:
            found["range"] = self.preset
        for name, value in (("from", self.start), ("to", self.end)):
            if value:
                found[name] = value.isoformat()
        return found

    def adding(self, name: str, value: str) -> Filters:
        """Return these conditions and one more."""
        return replace(self, values={**self.values, name: (value,)})

    def without(self, name: str) -> Filters:
        """Return these conditions without one."""
        return replace(self, values={other: kept for other, kept in self.values.items() if other != name})

    def chips(self, labels: Mapping[str, str] | None = None) -> list[Chip]:
        """Return the conditions in force, each with the query that removes it; `labels` names keys by id."""
        found = []
        for name, (label, _) in FIELDS.items():
            for value in self.values.get(name, ()):
                rest = tuple(other for other in self.values[name] if other != value)
                others = {key: kept for key, kept in self.values.items() if key != name} | (
                    {name: rest} if rest else {}
                )
                shown = (
                    (labels or {}).get(value, value) if name == "key" else f"{value} ms" if name == "slower" else value
                )
                found.append(Chip(label, shown, replace(self, values=others).query()))
        if self.start:
            found.append(
                Chip("from", f"{timezone.localtime(self.start):%Y-%m-%d %H:%M:%S}", replace(self, start=None).query())
            )
        if self.end:
            found.append(
                Chip("to", f"{timezone.localtime(self.end):%Y-%m-%d %H:%M:%S}", replace(self, end=None).query())
            )
        if self.text:
            found.append(Chip("text", self.text, replace(self, text="").query()))
        return found

    def conditions(self, name: str, values: tuple[str, ...] | None = None) -> tuple[str, list[Any]]:
        """Return one parameter as SQL with its values."""
        values = values or self.values[name]
        column = FIELDS[name][1]
        if name == "slower":
            return "latency_ms > %s", [min(float(value) for value in values)]
        if name == "rule":
            return "decision -> 'rule' ->> 'id' = ANY(%s)", [list(values)]
        kind = {"key": "::uuid[]", "ip": "::inet[]", "status": "::int[]"}.get(name, "")
        return f"{column} = ANY(%s{kind})", [list(values)]


def _checked(name: str, value: str, names: Mapping[str, str]) -> tuple[str, str]:
    """Return a problem in words, or the value as it is used."""
    try:
        if name == "key":
            return "", str(UUID(names.get(value, value)))
        if name == "outcome" and value not in Outcome.values:
            return f"“{value}” is not an outcome.", value
        if name == "ip":
            return "", str(ip_address(value))
        if name == "status":
            return ("", str(int(value))) if 0 <= int(value) < 1000 else (f"“{value}” is not a status.", value)
        if name == "slower":
            number = float(value)
            return ("", value) if 0 <= number < 1e9 else ("That latency is out of range.", value)
    except ValueError:
        return f"“{value[:60]}” does not fit the filter “{FIELDS[name][0]}”.", value
    return "", value


def _moment(value: str, problems: list[str]) -> datetime | None:
    """Read a moment; without a zone it is in the viewer's."""
    value = value.strip().replace("\0", "")
    if not value:
        return None
    try:
        moment = parse_datetime(value.replace(" ", "+") if "T" in value else value)
    except ValueError:
        moment = None
    if moment is None or not 1970 < moment.year < 9000:
        problems.append(f"“{value[:40]}” is not a time; write it like 2026-05-01T12:00.")
        return None
    return moment if timezone.is_aware(moment) else timezone.make_aware(moment)


def _form(moment: datetime) -> str:
    return f"{timezone.localtime(moment):%Y-%m-%dT%H:%M:%S}"
