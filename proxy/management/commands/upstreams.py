"""`manage.py upstreams`: the MCP servers behind the gateway, from the command line."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from core.access.actors import Actor
from proxy.mcp.definitions import diff, visible
from proxy.models import CatalogueItem, Upstream, UpstreamStatus
from proxy.services import catalogue
from proxy.services import upstreams as services
from proxy.services.errors import ServiceError, locked
from proxy.upstreams import options as upstream_options
from proxy.upstreams import vault

KINDS = ("tool", "prompt", "resource", "template")


class Command(BaseCommand):
    """Adds, changes, lists, checks and removes upstreams, and approves what they define."""

    help = "Adds, changes, lists, checks and removes upstreams, and approves what they define."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the sub-commands."""
        acts = parser.add_subparsers(dest="act", required=True, metavar="ACT")

        add = acts.add_parser("add", help="add an upstream: --url for a server, --command for a program to start")
        add.add_argument("slug", metavar="SLUG", help="its name in addresses and rules: a-z, 0-9 and hyphens")
        upstream_options.declare(add, new=True)
        add.add_argument("--check", action="store_true", help="check it at once; it stays also when the check fails")
        _json(add)

        change = acts.add_parser(
            "change",
            help="change what is said of an upstream, and nothing else",
            description="Changes what is given, and nothing else. With another scheme, host, port or command, stored secrets "
            "are given again or removed: they belong to where the upstream was.",
        )
        change.add_argument("slug", metavar="SLUG", help="which one; its name stays")
        upstream_options.declare(change, new=False)
        change.add_argument(
            "--check", action="store_true", help="check it at once; the change stays also when that fails"
        )
        _json(change)

        _json(acts.add_parser("list", help="list all upstreams"))

        for act, text in (("check", "connect, discover or initialize, list; say what went wrong where"),
                          ("refresh", "read its tools, prompts and resources again")):  # fmt: skip
            each = acts.add_parser(act, help=text)
            each.add_argument("slug", metavar="SLUG")
            _json(each)

        approve = acts.add_parser("approve", help="show definitions that wait for approval, and approve them")
        approve.add_argument("slug", metavar="SLUG")
        approve.add_argument("names", nargs="*", metavar="NAME", help="what to approve; none only shows what waits")
        approve.add_argument("--kind", choices=KINDS, default="tool", help="what the names are (tool)")
        approve.add_argument("--all", action="store_true", help="approve all that waits")
        _json(approve)

        for act, text in (("enable", "let calls through again"), ("disable", "answer 404 as if it were not there")):
            each = acts.add_parser(act, help=text)
            each.add_argument("slug", metavar="SLUG")
            _json(each)

        remove = acts.add_parser("remove", help="remove an upstream; its events stay")
        remove.add_argument("slug", metavar="SLUG")
        _json(remove)

    def handle(self, *args: Any, **options: Any) -> None:
        """Do what was asked; every failure is one line."""
        given = Namespace(**options)
        try:
            getattr(self, f"_{given.act}")(given)
        except ServiceError as error:
            raise CommandError(error.message) from None

    def _add(self, given: Namespace) -> None:
        upstream = services.create_upstream(
            actor=Actor.system(),
            slug=given.slug,
            may_start_commands=True,
            may_judge=True,
            **upstream_options.chosen(vars(given)),
        )
        self._told(given, upstream, f"Added {upstream.slug}: agents reach it at /mcp/{upstream.slug}.")

    def _change(self, given: Namespace) -> None:
        with transaction.atomic():
            fields = upstream_options.chosen(vars(given), locked(given.slug))
            if not fields and not given.check:
                raise CommandError("Nothing was said that is to change; `upstreams change --help` lists what can be.")
            upstream = services.update_upstream(
                actor=Actor.system(), slug=given.slug, may_start_commands=True, may_judge=True, **fields
            )
        self._told(given, upstream, f"Changed {upstream.slug}.")

    def _told(self, given: Namespace, upstream: Upstream, sentence: str) -> None:
        if given.check:
            self._check(given)
        elif given.json:
            self._print(services.describe(upstream))
        else:
            self.stdout.write(sentence)
            for name, stored in (upstream.headers | upstream.environment).items():
                if vault.is_sealed(stored):
                    self.stdout.write(f"{name} is stored encrypted and is not shown again.")

    def _list(self, given: Namespace) -> None:
        upstreams = list(Upstream.objects.select_related("status").order_by("slug"))
        if given.json:
            self._print([_line(upstream) for upstream in upstreams])
            return
        if not upstreams:
            self.stdout.write("There are no upstreams. Add one with: manage.py upstreams add NAME --url URL")
        width = max((len(upstream.slug) for upstream in upstreams), default=0)
        for upstream in upstreams:
            line = _line(upstream)
            state = "disabled" if not upstream.enabled else line["status"]
            self.stdout.write(
                f"{upstream.slug:{width}}  {state:11}  {line['era'] or '-':6}  {upstream.transport:15}  {upstream.url or upstream.command}"
            )

    def _check(self, given: Namespace) -> None:
        report, changes = catalogue.check_upstream(
            slug=given.slug,
            actor=Actor.system(),
            seconds=catalogue.FIRST_START_SECONDS,
            told=lambda line: self.stderr.write(f"{given.slug}: {line}", self.style.NOTICE),
        )
        if given.json:
            steps = [step.as_json() | ({"said": step.said} if step.said else {}) for step in report.steps]
            self._print(
                {
                    "slug": given.slug,
                    "ok": report.ok,
                    "era": report.verdict.era,
                    "steps": steps,
                    "changes": changes.as_json(),
                }
            )
        else:
            for step in report.steps:
                self.stdout.write(
                    f"{'ok    ' if step.ok else 'FAILED'}  {step.name}  {step.ms:.0f} ms  {visible(step.detail)}"
                )
                for line in step.said.splitlines():
                    self.stdout.write(f"        it said: {visible(line)}")
            for change, names in changes.as_json().items():
                self.stdout.write(f"{change}: {', '.join(names)}")
        if not report.ok:
            raise CommandError(f"{given.slug}: {visible(report.cause)}")

    _refresh = _check

    def _approve(self, given: Namespace) -> None:
        if given.all or given.names:
            if given.all and given.names:
                raise CommandError("Give names or --all, not both.")
            items = None if given.all else [(given.kind, name) for name in given.names]
            approved = catalogue.approve(actor=Actor.system(), slug=given.slug, items=items)
            if given.json:
                self._print([{"kind": item.kind, "name": item.name, "hash": item.hash} for item in approved])
            else:
                for item in approved:
                    self.stdout.write(f"approved {item.kind} {visible(item.name)}")
                if not approved:
                    self.stdout.write("Nothing was waiting.")
            return
        if not Upstream.objects.filter(slug=given.slug).exists():
            raise CommandError(f"There is no upstream {given.slug}.")
        waiting = (
            CatalogueItem.objects.filter(upstream__slug=given.slug).exclude(status="pinned").order_by("kind", "name")
        )
        if given.json:
            self._print(
                [
                    {"kind": item.kind, "name": item.name, "status": item.status, "hash": item.hash, "flags": item.flags,
                     "diff": diff(item.pinned_definition, item.definition)}
                    for item in waiting
                ]
            )  # fmt: skip
            return
        for item in waiting:
            self.stdout.write(f"{item.status}: {item.kind} {visible(item.name)}")
            for flag in item.flags:
                self.stdout.write(f"  ! {flag}")
            for line in diff(item.pinned_definition, item.definition):
                self.stdout.write(f"  {line}")
        if not waiting:
            self.stdout.write("Nothing is waiting.")

    def _enable(self, given: Namespace) -> None:
        self._switch(given, enabled=True)

    def _disable(self, given: Namespace) -> None:
        self._switch(given, enabled=False)

    def _switch(self, given: Namespace, *, enabled: bool) -> None:
        upstream = services.update_upstream(
            actor=Actor.system(), slug=given.slug, may_start_commands=True, may_judge=True, enabled=enabled
        )
        if given.json:
            self._print(services.describe(upstream))
        else:
            self.stdout.write(f"{given.slug} is {'enabled' if enabled else 'disabled'}.")

    def _remove(self, given: Namespace) -> None:
        services.remove_upstream(actor=Actor.system(), slug=given.slug)
        if given.json:
            self._print({"removed": given.slug})
        else:
            self.stdout.write(f"Removed {given.slug}.")

    def _print(self, value: Any) -> None:
        self.stdout.write(json.dumps(value, default=str))


def _json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _state(status: UpstreamStatus | None) -> str:
    """Say how an upstream stands: what its calls see goes before what checks see, which run nothing."""
    if status is not None and status.calls_ok is False:
        return "failing"
    if status is None or status.ok is None:
        return "not checked"
    return "ok" if status.ok else "down"


def _line(upstream: Upstream) -> dict[str, Any]:
    status = getattr(upstream, "status", None)
    return {
        **services.describe(upstream),
        "era": status.era if status else "",
        "versions": status.versions if status else [],
        "status": _state(status),
        "calls_ok": status.calls_ok if status else None,
        "calls_at": status.calls_at.isoformat() if status and status.calls_at else None,
        "calls_reason": status.calls_reason if status else "",
        "checked_at": status.checked_at.isoformat() if status and status.checked_at else None,
        "steps": status.steps if status else [],
    }
