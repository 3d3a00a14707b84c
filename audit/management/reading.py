"""What the commands that read the log share: their filters, and bringing what is at hand into the log first."""

from __future__ import annotations

from argparse import ArgumentParser, BooleanOptionalAction
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import CommandError

from audit.events.act_kinds import KINDS
from audit.export.stream import matching
from audit.filters import Filters
from audit.models import AuditEventQuerySet, Outcome
from core.durations import parse_duration

__all__ = ["COLUMNS", "add_filters", "chosen", "described", "moment"]

# Option -> column; options that are given more than once are alternatives.
COLUMNS = {
    "role": "role",
    "upstream": "upstream",
    "tool": "tool_name",
    "outcome": "outcome",
    "reason": "reason",
    "method": "method",
    "ip": "client_ip",
    "session": "session",
    "act": "kind of an administrator's act",
}


def moment(text: str, now: datetime | None = None) -> datetime:
    """Read a time: an age such as `15m`, `7d`, or a date and time (UTC unless it says otherwise)."""
    now = now or datetime.now(UTC)
    try:
        with suppress(ValueError):
            return now - parse_duration(text)
        read = datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):
        raise CommandError(
            f"{text!r} is no time: write an age (15m, 24h, 7d) or a date (2026-11-25, 2026-11-25T08:00Z)"
        ) from None
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def add_filters(parser: ArgumentParser) -> None:
    """Define the options that choose events."""
    parser.add_argument("--since", metavar="TIME", help="From this time on: an age (15m, 24h, 7d) or a date.")
    parser.add_argument("--until", metavar="TIME", help="Before this time.")
    parser.add_argument("--key", action="append", default=[], metavar="KEY", help="The key's id, prefix or name.")
    for option, column in COLUMNS.items():
        choices = {"outcome": Outcome.values, "act": list(KINDS)}.get(option)
        parser.add_argument(
            f"--{option}",
            action="append",
            default=[],
            choices=choices,
            metavar=None if choices else option.upper(),
            help=f"Only this {column.replace('_', ' ')}; more than one are alternatives.",
        )
    parser.add_argument(
        "--status", action="append", type=int, default=[], metavar="CODE", help="Only this HTTP status."
    )
    parser.add_argument(
        "--tool-error",
        action=BooleanOptionalAction,
        help="Only where the tool or the upstream itself said that it failed; --no-…: only where neither did.",
    )
    parser.add_argument("--search", metavar="TEXT", help="Names, reasons or ids that contain this text.")
    parser.add_argument("--limit", type=int, metavar="N", help="At most N events.")


def chosen(options: dict[str, Any]) -> AuditEventQuerySet:
    """Give the events that the options choose, unordered and unlimited; raises CommandError for what can fit none."""
    since, until = (options[name] for name in ("since", "until"))
    values = {name: list(map(str, options[name])) for name in ("key", *COLUMNS, "status")}
    if options["tool_error"] is not None:
        values["tool_error"] = [str(options["tool_error"]).lower()]
    filters = Filters.of(
        values,
        text=options["search"] or "",
        start=moment(since) if since is not None else None,
        end=moment(until) if until is not None else None,
    )
    if filters.problems:
        raise CommandError(" ".join(filters.problems))
    if options["search"] is not None and not options["search"].strip():
        raise CommandError("--search holds nothing but blanks")
    if options["limit"] is not None and options["limit"] < 1:
        raise CommandError("--limit must be at least 1")
    found: AuditEventQuerySet = matching(filters).order_by()
    return found


def described(options: dict[str, Any]) -> dict[str, Any]:
    names = ("since", "until", "key", *COLUMNS, "status", "search", "limit")
    found = {name: options[name] for name in names if options.get(name)}
    return found if options["tool_error"] is None else found | {"tool_error": options["tool_error"]}
