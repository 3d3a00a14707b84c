"""`manage.py secondfactor`: who has a second factor, and a way back in for whoever has lost theirs."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from audit.services.acts import record_act
from core.access.actors import Actor
from sentinel.models import User
from sentinel.users import second_factor


class Command(BaseCommand):
    """Lists and resets second factors."""

    help = (
        "Lists who has a second factor, and takes one away from somebody who has lost authenticator and recovery codes."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the sub-commands."""
        acts = parser.add_subparsers(dest="act", required=True, metavar="ACT")
        listing = acts.add_parser(
            "list", help="list people, whether they have a second factor, and how many codes are left"
        )
        listing.add_argument("--json", action="store_true", help="print JSON")
        reset = acts.add_parser("reset", help="take somebody's second factor and recovery codes away")
        reset.add_argument("username", metavar="USERNAME", help="whose")
        reset.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one sub-command."""
        getattr(self, f"do_{options['act']}")(options)

    def do_list(self, options: dict[str, Any]) -> None:
        people = [
            {
                "username": user.username,
                "second_factor": second_factor.enrolled(user),
                "recovery_codes": second_factor.left(user),
            }
            for user in User.objects.order_by("username")
        ]
        if options["json"]:
            self.stdout.write(json.dumps(people))
            return
        for one in people:
            has = f"yes, {one['recovery_codes']} recovery codes left" if one["second_factor"] else "no"
            self.stdout.write(f"{one['username']:<32} {has}")

    def do_reset(self, options: dict[str, Any]) -> None:
        """Take one away; the event names who did it on this machine."""
        name = options["username"]
        user = User.objects.filter(username=name).first() if "\0" not in name else None
        if user is None:
            raise CommandError(f"there is no person named {name!r}")
        with transaction.atomic():
            if not second_factor.forget(user):
                raise CommandError(f"{name} has no second factor")
            record_act(method="admin.user.second_factor_reset", actor=Actor.system(), target=user.username)
        if options["json"]:
            self.stdout.write(json.dumps({"username": name, "second_factor": False}))
            return
        self.stdout.write(f"{name} logs in with the password alone until they set up a new second factor")
