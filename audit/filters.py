"""What someone looks for in the log: read from a query, written back to one, shown as chips."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, tzinfo
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlencode
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db import OperationalError, connection, transaction
from django.http import QueryDict
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from audit.events import act_kinds, tool_errors
from audit.models import Outcome
from core import registry
from core.ids import uuid7_floor

__all__ = ["FIELDS", "PRESETS", "Chip", "Filters", "absolute", "of_form", "pattern"]

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
    "tool_error": ("tool error", tool_errors.SQL),
    "act": ("administration", "method"),
}
INDEXED = ("key", "tool", "outcome", "act")
SINGLE = ("range", "from", "to", "q")  # parameters that are given once
MAX_VALUES = 20
LONGEST = 300
LONGEST_TEXT = 200
LOOK_MS = 250  # how long is looked for events of a key that there is not


@dataclass(frozen=True, slots=True)
class Chip:
    """One condition in force: what it says, and the query without it."""

    label: str
    value: str
    without: str


@dataclass(frozen=True, slots=True)
class Filters:
    """The conditions on a view of the log.

    What was asked for and cannot be understood, or cannot fit any event, is kept as it was sent and said in `problems`; such a
    view has no events at all. So nothing that reads these shows more than was asked for, whatever it was.
    """

    preset: str = ""
    start: datetime | None = None
    end: datetime | None = None
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    text: str = ""
    problems: tuple[str, ...] = ()
    rejected: tuple[tuple[str, str], ...] = ()
    #: ids of the keys that `values` gives by name
    keys: tuple[str, ...] = ()

    @classmethod
    def read(cls, query: QueryDict, besides: Collection[str] = ()) -> Filters:
        """Read a query; `besides` names the parameters that mean something else on this page."""
        problems: list[str] = []
        rejected: list[tuple[str, str]] = []

        def refuse(name: str, values: Iterable[str], words: str) -> None:
            problems.append(words)
            rejected.extend((name[:LONGEST], value[:LONGEST]) for value in values)

        one = {}
        for name in SINGLE:
            given = list(dict.fromkeys(value for value in query.getlist(name) if value))
            one[name] = given[0].strip() if len(given) == 1 else ""
            if len(given) > 1:
                refuse(name, given, f"“{name}” can be given once.")
            elif given and not one[name] and name != "q":  # a search box with blanks in it is an empty one
                refuse(name, given, f"“{name}” holds nothing but blanks.")
        for name in query:
            if name not in FIELDS and name not in SINGLE and name not in besides:
                refuse(name, query.getlist(name)[:MAX_VALUES], f"There is no filter “{name[:60]}”.")
        if one["range"] not in PRESETS:
            refuse("range", [one["range"]], f"“{one['range'][:40]}” is not a time range.")
            one["range"] = ""
        moments = {}
        for name in ("from", "to"):
            moments[name] = _moment(one[name])
            if one[name] and moments[name] is None:
                refuse(name, [one[name]], f"“{one[name][:40]}” is not a time; write it like 2026-05-01T12:00.")
        # A form sends what was left empty; what holds blanks was asked for, and is no value.
        values = {name: [value for value in query.getlist(name) if value] for name in FIELDS}
        preset = "" if moments["from"] or moments["to"] else one["range"]
        found = cls.of(values, text=one["q"], start=moments["from"], end=moments["to"])
        return replace(found, preset=preset, problems=(*problems, *found.problems), rejected=tuple(rejected))

    @classmethod
    def of(
        cls,
        values: Mapping[str, Iterable[str]],
        *,
        text: str = "",
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> Filters:
        """Check conditions, whoever gave them: a page's query, a program, a command, or an export that was asked for earlier."""
        problems: list[str] = []
        kept: dict[str, tuple[str, ...]] = {}
        for name, given in values.items():
            wanted: list[str] = []
            for value in given:
                problem, value = _checked(name, value)
                if problem:
                    problems.append(problem)
                if value not in wanted:
                    wanted.append(value)
            if len(wanted) > MAX_VALUES:
                problems.append(f"At most {MAX_VALUES} values of one filter can be given.")
            if wanted:
                kept[name] = tuple(wanted[: MAX_VALUES + 1])
        if len(text) > LONGEST_TEXT or "\0" in text:
            problems.append(f"The text to look for has at most {LONGEST_TEXT} characters, and no NUL.")
            text = text[: LONGEST_TEXT + 1]
        if start and end and start >= end:
            problems.append("The start of the time range lies after its end.")
        found = cls(start=start, end=end, values=kept, text=text, problems=tuple(problems))
        names = [] if problems else found.named
        if not names:
            return found
        keys, lacking = resolve(names)
        return replace(found, keys=keys, problems=tuple(f"No key is named “{name}”." for name in lacking))

    @property
    def named(self) -> list[str]:
        """The keys that are given by name or prefix and not by id."""
        return [value for value in self.values.get("key", ()) if not _is_id(value)]

    @property
    def empty(self) -> bool:
        """Whether nothing narrows the view."""
        return not (self.preset or self.start or self.end or self.values or self.text or self.problems)

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
            found.append(("from", absolute(self.start)))
        if self.end:
            found.append(("to", absolute(self.end)))
        found += [(name, value) for name in FIELDS for value in self.values.get(name, ())]
        if self.text:
            found.append(("q", self.text))
        return [*found, *self.rejected]

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

    def without(self, name: str) -> Filters:
        """Return these conditions without one."""
        return replace(self, values={other: kept for other, kept in self.values.items() if other != name})

    def chips(self, labels: Mapping[str, str] | None = None) -> list[Chip]:
        """Return the conditions in force, each with the query that removes it; `labels` names keys by id."""
        found = []
        for name, (label, _) in FIELDS.items():
            for value in self.values.get(name, ()):
                rest = tuple(other for other in self.values[name] if other != value)
                others = replace(self, values={**self.values, name: rest}) if rest else self.without(name)
                shown = (labels or {}).get(value, value) if name == "key" else _shown(name, value)
                found.append(Chip(label, shown, others.query()))
        for name, bound, when in (("from", "start", self.start), ("to", "end", self.end)):
            if when:
                shown = f"{timezone.localtime(when):%Y-%m-%d %H:%M:%S %Z}"
                rest_of_time: dict[str, Any] = {bound: None}
                found.append(Chip(name, shown, replace(self, **rest_of_time).query()))
        if self.text:
            found.append(Chip("text", self.text, replace(self, text="").query()))
        for pair in self.rejected:
            kept_pairs = tuple(other for other in self.rejected if other != pair)
            found.append(Chip(pair[0], pair[1], replace(self, rejected=kept_pairs).query()))
        return found

    def where(self, names: Iterable[str] | None = None) -> tuple[list[str], list[Any]]:
        """Return the conditions beside the time as SQL: all, or those of these parameters and the text."""
        if self.problems:
            return ["false"], []
        conditions, params = [], []
        for name in self.values if names is None else names:
            sql, values = self.conditions(name)
            conditions.append(sql)
            params += values
        if self.text:
            conditions.append("search ILIKE %s")
            params.append(pattern(self.text))
        return conditions, params

    def conditions(self, name: str, values: tuple[str, ...] | None = None) -> tuple[str, list[Any]]:
        """Return one parameter as SQL with its values."""
        values = values or self.values[name]
        column = FIELDS[name][1]
        if name == "slower":
            return "latency_ms > %s", [min(float(value) for value in values)]
        if name == "key" and self.named:
            return self._keys()
        if name == "act":
            parts = [act_kinds.where(value) for value in values]
            return f"({' OR '.join(sql for sql, _ in parts)})", [value for _, given in parts for value in given]
        if name == "rule":
            return "decision -> 'rule' ->> 'id' = ANY(%s)", [list(values)]
        kind = {"key": "::uuid[]", "ip": "::inet[]", "status": "::int[]", "tool_error": "::bool[]"}.get(name, "")
        return f"{column} = ANY(%s{kind})", [list(values)]

    def _keys(self) -> tuple[str, list[Any]]:
        """Keys by name: those that have it now, under whatever name their events are; and events that carry it themselves, of
        keys that are gone or have another name by now. The text that searches use comes first, because it has an index.
        """
        ids = [value for value in self.values["key"] if _is_id(value)]
        sql = (
            "(api_key_id = ANY(%s::uuid[]) OR (search ILIKE ANY(%s) AND (key_name = ANY(%s) OR key_prefix = ANY(%s))))"
        )
        return sql, [[*ids, *self.keys], [pattern(name) for name in self.named], self.named, self.named]


def pattern(text: str) -> str:
    """Return what LIKE takes for "contains this text"."""
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def resolve(names: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Return the ids of all keys with these names or prefixes, and the names that neither a key nor any event has."""
    found = registry.keys_named(names)
    present = {word for _, name, prefix in found for word in (name, prefix)}
    lacking = [name for name in names if name not in present and not _in_events(name)]
    return tuple(sorted({id_ for id_, _, _ in found})), lacking


def _in_events(name: str) -> bool:
    """Tell whether events carry this name; where that takes too long to say, they may."""
    sql = "SELECT 1 FROM audit_auditevent WHERE search ILIKE %s AND (key_name = %s OR key_prefix = %s) LIMIT 1"
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL statement_timeout = {LOOK_MS};{sql}", [pattern(name), name, name])
            cursor.nextset()
            there = cursor.fetchone() is not None
            if connection.savepoint_ids:
                cursor.execute("SET LOCAL statement_timeout = DEFAULT")
            return there
    except OperationalError:
        return True


def _is_id(value: str) -> bool:
    try:
        return str(UUID(value)) == value
    except ValueError:
        return False


def _checked(name: str, value: str) -> tuple[str, str]:
    """Return a problem in words, and the value as it is used."""
    value = value.strip() or value
    label = FIELDS[name][0]
    if not value.strip():
        return f"The filter “{label}” is empty.", value
    if "\0" in value or len(value) > LONGEST:
        return f"A {label} has at most {LONGEST} characters, and no NUL.", value[: LONGEST + 1]
    try:
        if name == "key":
            return "", value.lower() if _is_id(value.lower()) else value
        if name == "outcome" and value not in Outcome.values:
            return f"“{value}” is not an outcome.", value
        if name == "act" and value not in act_kinds.KINDS:
            return f"“{value[:60]}” is no kind of an administrator's act.", value
        if name == "tool_error" and value not in ("true", "false"):
            return f"“{value[:60]}” is neither true nor false.", value
        if name == "ip":
            address = ip_address(value)
            if getattr(address, "scope_id", None):  # events keep none
                raise ValueError
            return "", str(address)
        if name == "status":
            return ("", str(int(value))) if 0 <= int(value) < 1000 else (f"“{value}” is not a status.", value)
        if name == "slower":
            number = float(value)
            return ("", value) if 0 <= number < 1e9 else ("That latency is out of range.", value)
    except ValueError:
        return f"“{value[:60]}” is not a value of the filter “{label}”.", value
    return "", value


def _moment(value: str) -> datetime | None:
    """Read a moment; without a zone it is in the viewer's."""
    try:
        moment = parse_datetime(value.replace(" ", "+") if "T" in value else value)
        if moment is None or not 1970 < moment.year < 9000:
            return None
        return moment if timezone.is_aware(moment) else timezone.make_aware(moment)
    except (ValueError, OverflowError):
        return None


def _shown(name: str, value: str) -> str:
    return f"{value} ms" if name == "slower" else act_kinds.KINDS.get(value, value) if name == "act" else value


def absolute(moment: datetime) -> str:
    """Write a moment as links carry it: in UTC and saying so, so that whoever follows one sees the same events."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def of_form(query: QueryDict) -> QueryDict | None:
    """Return what the filter form sends as the query of a link; None for a query that is one already.

    A form's times are in the zone that it names; what was left empty is left out.
    """
    if "zone" not in query:
        return None
    try:
        zone: tzinfo = ZoneInfo(str(query["zone"]))
    except (ValueError, OSError):  # no such zone
        zone = timezone.get_current_timezone()
    found = QueryDict(mutable=True)
    for name, values in query.lists():
        if name != "zone":
            with timezone.override(zone):
                given = [_absolute(value) if name in ("from", "to") else value for value in values if value]
            if given:
                found.setlist(name, given)
    return found


def _absolute(value: str) -> str:
    moment = _moment(value)
    return value if moment is None else absolute(moment)
