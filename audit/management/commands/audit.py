"""`manage.py audit …`: read, prove, keep and mend the log from the command line."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, BinaryIO
from uuid import UUID

import orjson
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, connection

from audit.drain.drainer import drain_at_hand
from audit.export import formats as exporting
from audit.management import reading, redaction
from audit.models import OpenCall
from audit.redaction import loading
from audit.services import maintenance
from audit.services.acts import record_act
from core.access.actors import Actor
from core.ids import uuid7_floor

LATE_SECONDS = 60.0
POLL_SECONDS = 0.3


class Command(BaseCommand):
    """The commands of the audit log."""

    help = "Read, verify, export and keep the audit log."

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

        tail = actions.add_parser("tail", help="Show the newest events, and with -f those that come.")
        tail.add_argument("-f", "--follow", action="store_true", help="Go on with the events that come.")
        tail.add_argument("-n", type=int, default=20, metavar="N", help="Begin with the last N events (20).")
        tail.add_argument("--json", action="store_true", help="One JSON object a line, as exported.")
        reading.add_filters(tail)

        export = actions.add_parser("export", help="Write events, oldest first, to standard output or a file.")
        export.add_argument(
            "--format", choices=list(exporting.FORMATS), default="ndjson", help="ndjson (default), csv, ocsf."
        )
        export.add_argument(
            "--json", action="store_const", dest="format", const="ndjson", help="The same as --format ndjson."
        )
        export.add_argument("--output", "-o", metavar="FILE", help="Write there instead of standard output.")
        export.add_argument("--newest-first", action="store_true", help="Newest first; with --limit the newest N.")
        reading.add_filters(export)

        verify = actions.add_parser("verify", help="Find every missing number, and say which are explained.")
        verify.add_argument("--json", action="store_true", help="Print one JSON object.")

        partitions = actions.add_parser(
            "partitions", help="List the partitions; make those ahead, drop those past their age."
        )
        partitions.add_argument(
            "--mind", action="store_true", help="Make the days ahead and drop what is past its age, now."
        )
        partitions.add_argument("--json", action="store_true", help="Print JSON.")

        quarantine = actions.add_parser("quarantine", help="Frames of a journal that could not be stored.")
        what = quarantine.add_subparsers(dest="what", required=True, metavar="list|retry")
        listing = what.add_parser("list", help="List them.")
        listing.add_argument("--all", action="store_true", help="Also those that were stored later.")
        listing.add_argument("--json", action="store_true", help="Print JSON.")
        retry = what.add_parser("retry", help="Try to store them again.")
        retry.add_argument("ids", nargs="*", type=int, metavar="ID", help="Only these.")
        retry.add_argument("--json", action="store_true", help="Print JSON.")

        check = actions.add_parser("redact-check", help="Show how a value would stand in the log, and its fingerprint.")
        check.add_argument("value", metavar="VALUE", help="The value; `-` reads it from standard input.")
        check.add_argument("--json", action="store_true", help="Print JSON.")

        redaction.add_arguments(
            actions.add_parser("redaction", help="What is redacted beside what always is: list, add, remove.")
        )

        erase = actions.add_parser(
            "erase-payload", help="Empty one event's payloads, for the law; digests and all else stay."
        )
        erase.add_argument("id", metavar="ID", help="The event's id.")
        erase.add_argument("--reason", required=True, metavar="TEXT", help="Why; it stands in the event of this act.")
        erase.add_argument("--json", action="store_true", help="Print JSON.")

    def handle(self, *args: Any, **options: Any) -> None:
        action = options["action"].replace("-", "_")
        try:
            getattr(self, f"do_{action}")(options)
        except BrokenPipeError:
            # Whoever read has seen enough.
            sys.stderr.close()
            raise SystemExit(141) from None

    def at_hand(self) -> None:
        """Bring what waits in journals and outbox into the log before it is read."""
        connection.ensure_connection()
        loading.ensure()
        if not drain_at_hand():
            self.stderr.write("warning: not everything at hand could be stored; the log may be behind")

    # -- reading ------------------------------------------------------------------------------------------------------

    def do_tail(self, options: dict[str, Any]) -> None:
        """Show the newest events."""
        self.at_hand()
        events = reading.chosen(options)
        limit = options["limit"] or max(options["n"], 0)
        found = list(exporting.rows(events.order_by("-id")[:limit])) if limit else []
        for row in reversed(found):
            self.show(row, options["json"])
        if options["follow"]:
            try:
                self.follow(options, {row["id"] for row in found})
            except KeyboardInterrupt:
                return

    def follow(self, options: dict[str, Any], seen: set[UUID]) -> None:
        """Show events as they are stored; one that began long ago is found when its running call has ended."""
        running: set[UUID] = set()
        shown: dict[UUID, float] = dict.fromkeys(seen, time.time())
        start = time.time()
        while True:
            now = time.time()
            floor = uuid7_floor(datetime.fromtimestamp(max(start - 1.0, now - LATE_SECONDS), UTC))
            events = reading.chosen(options)
            late = running - (running := set(OpenCall.objects.values_list("id", flat=True)[:10_000]))
            rows = [*exporting.rows(events.filter(id__gte=floor).order_by("id"))]
            if late:
                rows += exporting.rows(events.filter(id__in=late, id__lt=floor).order_by("id"))
            for row in rows:
                if row["id"] not in shown:
                    shown[row["id"]] = now
                    self.show(row, options["json"])
            shown = {key: when for key, when in shown.items() if now - when < 2 * LATE_SECONDS}
            time.sleep(POLL_SECONDS)

    def show(self, row: dict[str, Any], as_json: bool) -> None:
        if as_json:
            self.stdout.write(orjson.dumps(exporting.exported(row)).decode())
        else:
            self.stdout.write(line_of(row))
        self.stdout.flush()

    def do_export(self, options: dict[str, Any]) -> None:
        """Write events; what was taken, and how much, is an event itself."""
        self.at_hand()
        events = reading.chosen(options).order_by("-id" if options["newest_first"] else "id")
        if options["limit"]:
            events = events[: options["limit"]]
        about = {"filter": reading.described(options), "format": options["format"]}
        record_act(method="admin.events.exported", actor=Actor.system(), target=options["format"], details=about)
        count = 0
        complete = False
        try:
            with opened(options["output"]) as file:
                for piece in exporting.export(events, options["format"]):
                    count += file.write(piece)
            complete = True
        finally:
            done = {**about, "bytes": count, "complete": complete}
            record_act(method="admin.events.export.ended", actor=Actor.system(), target=options["format"], details=done)

    def do_verify(self, options: dict[str, Any]) -> None:
        """Verify the sequences; exit 1 when a number is missing without an explanation."""
        self.at_hand()
        report = maintenance.verified()
        if options["json"]:
            self.stdout.write(orjson.dumps(report.as_dict()).decode())
        else:
            for finding in report.findings:
                mark = "explained" if finding.explained else "MISSING  "
                self.stdout.write(f"{mark}  {finding}")
            told = "every number is there or explained" if report.ok else "numbers are missing"
            self.stdout.write(f"{report.events} events of {report.writers} writers in {report.boots} boots: {told}")
        if not report.ok:
            raise SystemExit(1)

    # -- keeping ------------------------------------------------------------------------------------------------------

    def do_partitions(self, options: dict[str, Any]) -> None:
        minded = maintenance.mind_partitions() if options["mind"] else None
        listed = maintenance.listed_partitions()
        if options["json"]:
            parts = [
                {"name": part.name, "day": part.day and part.day.isoformat(), "rows": part.rows, "bytes": part.size}
                for part in listed
            ]
            self.stdout.write(orjson.dumps({"partitions": parts, **(minded or {})}).decode())
            return
        for part in listed:
            day = part.day.isoformat() if part.day else "any other"
            rows = "not counted yet" if part.rows is None else f"about {part.rows:,} events"
            self.stdout.write(f"{part.name:<32} {day:<10} {rows:>25} {part.size / 1e6:>10,.1f} MB")
        for name, days in (minded or {}).items():
            self.stdout.write(f"{name}: {', '.join(days) or 'none'}")

    def do_quarantine(self, options: dict[str, Any]) -> None:
        if options["what"] == "list":
            frames = maintenance.quarantined(options["all"])
            if options["json"]:
                self.stdout.write(orjson.dumps(frames).decode())
                return
            for frame in frames:
                state = "stored later" if frame["resolved_at"] else "waits"
                self.stdout.write(
                    f"{frame['id']:>6}  {frame['writer']}.{frame['boot']} frame {frame['frame']}"
                    f"  {frame['bytes']} bytes  {state}  {frame['error'].splitlines()[0][:120]}"
                )
            self.stdout.write(f"{len(frames)} in quarantine" if frames else "nothing in quarantine")
            return
        self.at_hand()
        done, failed = maintenance.retry_quarantined(options["ids"])
        if options["json"]:
            told = {"stored": done, "failed": {str(number): error for number, error in failed.items()}}
            self.stdout.write(orjson.dumps(told).decode())
        else:
            for number, error in failed.items():
                self.stdout.write(f"{number:>6}  {error}")
            self.stdout.write(f"{len(done)} stored, {len(failed)} still in quarantine")
        if failed:
            raise SystemExit(1)

    def do_redact_check(self, options: dict[str, Any]) -> None:
        from audit.redaction.sanitizer import current

        loading.ensure()
        value = sys.stdin.read().rstrip("\n") if options["value"] == "-" else options["value"]
        sanitizer = current()
        found = {"stored": sanitizer.text(value, 8192), "fingerprint": sanitizer.fingerprint(value)}
        if options["json"]:
            self.stdout.write(orjson.dumps(found).decode())
        else:
            self.stdout.write(f"stored       {found['stored']}\nfingerprint  {found['fingerprint']}")

    def do_redaction(self, options: dict[str, Any]) -> None:
        redaction.run(options, self.stdout.write)

    def do_erase_payload(self, options: dict[str, Any]) -> None:
        try:
            key = UUID(options["id"])
        except ValueError:
            raise CommandError(f"{options['id']!r} is not an event's id") from None
        if not options["reason"].strip():
            raise CommandError("--reason must say why")
        self.at_hand()
        try:
            maintenance.erase_payloads(key, reason=options["reason"], actor=Actor.system())
        except maintenance.NoSuchEvent:
            raise CommandError(f"there is no event {key}") from None
        except DatabaseError as error:
            raise CommandError(f"the payload was not erased: {str(error).splitlines()[0]}") from None
        told = (
            f"the payloads of {key} are gone, its digests stay; drained journal segments hold theirs for a day at most"
        )
        answer = {"id": str(key), "erased": ["request_json", "response_json"]}
        self.stdout.write(orjson.dumps(answer).decode() if options["json"] else told)


def line_of(row: dict[str, Any]) -> str:
    """Word one event as a line for people."""
    when = row["ts"].strftime("%H:%M:%S.%f")[:-3]
    who = row["key_name"] or row["client_ip"] or "-"
    what = " ".join(part for part in (row["upstream"], row["method"], row["tool_name"]) if part) or "-"
    times = f" x{row['count']}" if row["count"] > 1 else ""
    reason = f" ({row['reason']})" if row["reason"] else ""
    failed = " tool-error" if row["tool_error"] else ""
    return f"{when} {row['outcome']:<15}{failed}{times} {row['status_code']} {who} [{row['role'] or '-'}] {what}{reason} {row['latency_ms']:.1f} ms {row['id']}"


@contextmanager
def opened(path: str | None) -> Iterator[BinaryIO]:
    """Open a place to write bytes to: a file, or standard output."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        file = open(path, "wb")
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}") from None
    with file:
        yield file
