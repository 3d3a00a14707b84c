"""`manage.py keys`: API keys, from the command line."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from datetime import datetime, timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from core.access.actors import Actor
from core.durations import parse_duration
from policies import vocabulary
from policies.models import ApiKey
from policies.services import keys as key_acts


class Command(BaseCommand):
    """Creates, lists, rotates and revokes API keys."""

    help = "Creates, lists, rotates and revokes API keys. A key's secret is shown once, when it is made."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the sub-commands."""
        acts = parser.add_subparsers(dest="act", required=True, metavar="ACT")

        create = acts.add_parser("create", help="create a key and show its secret this once")
        create.add_argument("name", metavar="NAME", help="what the key is called in lists and events")
        what = create.add_mutually_exclusive_group(required=True)
        what.add_argument("--role", help="an agent's key, with this role")
        what.add_argument(
            "--administrative",
            choices=vocabulary.DUTIES,
            metavar="DUTY",
            help=f"a key for the REST API, never for a tool: {', '.join(vocabulary.DUTIES)}",
        )
        create.add_argument("--expires-in", metavar="SPAN", help="like 30d or 12h (administrative: 90d)")
        create.add_argument("--owner", default="", help="a person or team to ask about it")
        create.add_argument("--description", default="", help="what it is for")
        create.add_argument("--network", action="append", default=[], help="where it may be used from; may be repeated")
        create.add_argument("--upstream", action="append", default=[], help="what it may reach; may be repeated")
        create.add_argument("--no-query", action="store_true", help="refuse it in ?api_key=")
        _json(create)

        listing = acts.add_parser("list", help="list all keys, never their secrets")
        listing.add_argument("--live", action="store_true", help="only keys that are neither revoked nor expired")
        listing.add_argument("--role", help="only keys of this role")
        listing.add_argument("--unused-for", metavar="SPAN", help="only live keys not used for so long, like 90d")
        _json(listing)

        rotate = acts.add_parser("rotate", help="give a key a new secret and show it this once")
        rotate.add_argument("key", metavar="ID", help="id, visible part, or name")
        rotate.add_argument("--overlap", metavar="SPAN", default="0s", help="how long the old secret stays valid (0s)")
        _json(rotate)

        revoke = acts.add_parser("revoke", help="revoke a key for good")
        revoke.add_argument("key", metavar="ID", help="id, visible part, or name")
        revoke.add_argument("--reason", default="", help="why; kept with the key and its event")
        _json(revoke)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one act; what is refused is told in one line."""
        try:
            getattr(self, f"act_{options['act']}")(options)
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        except ValueError as error:
            raise CommandError(str(error)) from error

    def act_create(self, options: dict[str, Any]) -> None:
        span = parse_duration(options["expires_in"]) if options["expires_in"] else None
        made = key_acts.create_key(
            name=options["name"],
            actor=Actor.system(),
            role=options["role"],
            duty=options["administrative"],
            owner=options["owner"],
            description=options["description"],
            expires_at=_later(span),
            networks=options["network"],
            upstreams=options["upstream"],
            query_allowed=not options["no_query"],
        )
        self.show_secret(made, options)

    def act_rotate(self, options: dict[str, Any]) -> None:
        overlap = parse_duration(options["overlap"])
        self.show_secret(key_acts.rotate_key(options["key"], actor=Actor.system(), overlap=overlap), options)

    def show_secret(self, made: key_acts.CreatedKey, options: dict[str, Any]) -> None:
        """Show a new secret; the only place where it is ever printed."""
        if options["json"]:
            self.stdout.write(json.dumps({**key_acts.shown(made.key), "key": made.secret}))
            return
        key = made.key
        holds = f"role {key.role.name}" if key.role else f"administrative, {key.duty}"
        ends = f"expires {key.expires_at:%Y-%m-%d %H:%M} UTC" if key.expires_at else "does not expire"
        told = f"{key.name} ({key.pk}): {holds}, {ends}.\nKeep it now: it is not shown again."
        self.stdout.write(f"{made.secret}\n\n{told}")  # in one piece, for `| head -n 1`

    def act_list(self, options: dict[str, Any]) -> None:
        keys = ApiKey.objects.select_related("role", "usage").prefetch_related("secrets")
        if options["role"]:
            keys = keys.filter(role__name=options["role"])
        rows = [_row(key) for key in keys]
        if options["live"] or options["unused_for"]:
            rows = [row for row in rows if row["state"] == "live"]
        if options["unused_for"]:
            since = (timezone.now() - parse_duration(options["unused_for"])).isoformat()
            rows = [row for row in rows if (row["last_used_at"] or row["created_at"]) < since]
        if options["json"]:
            self.stdout.write(json.dumps(rows))
            return
        table = [("ID", "NAME", "KEY", "HOLDS", "STATE", "EXPIRES", "LAST USED")]
        for row in rows:
            holds = row["role"] or row["duty"] or ""
            ends, used = (row["expires_at"] or "never")[:10], (row["last_used_at"] or "never")[:16].replace("T", " ")
            table.append((row["id"], row["name"], f"{row['prefix']}…{row['last4']}", holds, row["state"], ends, used))
        widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
        for line in table:
            self.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())

    def act_revoke(self, options: dict[str, Any]) -> None:
        key = key_acts.revoke_key(options["key"], actor=Actor.system(), reason=options["reason"])
        if options["json"]:
            self.stdout.write(json.dumps(key_acts.shown(key)))
        else:
            self.stdout.write(f"{key.name} ({key.prefix}) is revoked. Workers refuse it within a second.")


def _row(key: ApiKey) -> dict[str, Any]:
    secrets = list(key.secrets.all())
    usage = getattr(key, "usage", None)
    return {
        **key_acts.shown(key),
        "state": key.state,
        "created_at": key.created_at.isoformat(),
        "created_by": key.created_by,
        "last4": secrets[0].last4 if secrets else "",
        "secrets": [
            {
                "generation": secret.generation,
                "last4": secret.last4,
                "pepper": secret.pepper_id,
                "not_after": secret.not_after.isoformat() if secret.not_after else None,
            }
            for secret in secrets
        ],
        "last_used_at": usage.last_used_at.isoformat() if usage else None,
        "last_ip": usage.last_ip if usage else None,
    }


def _later(span: timedelta | None) -> datetime | None:
    if span is None:
        return None
    try:
        return timezone.now() + span
    except OverflowError:
        raise ValueError("that is too far in the future") from None


def _json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
