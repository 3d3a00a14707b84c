"""`manage.py audit redaction …`: what is redacted beside what always is, from the command line."""

from __future__ import annotations

from typing import Any

import orjson
from django.core.management.base import CommandError, CommandParser

from audit.models import RedactionRule
from audit.redaction.rules import KINDS
from audit.services import redaction_rules
from core.access.actors import Actor

__all__ = ["add_arguments", "run"]


def add_arguments(parser: CommandParser) -> None:
    what = parser.add_subparsers(dest="what", required=True, metavar="list|add|remove")
    listing = what.add_parser("list", help="List the rules.")
    listing.add_argument("--json", action="store_true", help="Print JSON.")
    add = what.add_parser("add", help="Have a name's values, a pattern, or personal data redacted from now on.")
    add.add_argument("kind", choices=KINDS, help="name, pattern or personal.")
    add.add_argument("value", help="The name; the pattern in RE2's syntax; or email, card, iban, phone.")
    add.add_argument("--label", default="", help="Stands in the replacement, [REDACTED:label:…].")
    add.add_argument("--note", default="", help="Why.")
    add.add_argument("--disabled", action="store_true", help="Keep it, but do not redact by it yet.")
    add.add_argument("--json", action="store_true", help="Print JSON.")
    remove = what.add_parser("remove", help="Have it redacted no longer.")
    remove.add_argument("id", type=int, metavar="ID", help="The rule's number, as listed.")
    remove.add_argument("--json", action="store_true", help="Print JSON.")


def run(options: dict[str, Any], write: Any) -> None:
    """Do it; `write` prints a line."""
    try:
        if options["what"] == "list":
            found = list(RedactionRule.objects.order_by("kind", "value"))
        elif options["what"] == "add":
            fields = {name: options[name] for name in ("kind", "value", "label", "note")}
            found = [redaction_rules.create_rule(**fields, enabled=not options["disabled"], actor=Actor.system())]
        else:
            gone = redaction_rules.delete_rule(options["id"], actor=Actor.system())
            write(orjson.dumps({"id": options["id"]}).decode() if options["json"] else f"{gone} is redacted no longer")
            return
    except redaction_rules.RuleRefused as error:
        raise CommandError("; ".join(error.messages)) from None
    if options["json"]:
        told: Any = [{"id": rule.pk, **redaction_rules.shown(rule)} for rule in found]
        write(orjson.dumps(told if options["what"] == "list" else told[0]).decode())
        return
    for rule in found:
        off = "" if rule.enabled else "  (disabled)"
        write(f"{rule.pk:>5}  {rule.kind:<9} {rule.value}  [{rule.label or 'custom'}]{off}  {rule.note}".rstrip())
    if not found:
        write("nothing beside what is always redacted")
