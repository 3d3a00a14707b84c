"""`manage.py policy`: roles, rules and limits as a file; and what they decide, would decide and would have decided."""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError
from django.utils import timezone

from core.access.actors import Actor
from core.durations import parse_duration
from policies import vocabulary
from policies.documents import cases
from policies.documents.diff import text_diff
from policies.documents.reader import Document, DocumentError, parse
from policies.engine import json_decimals, schemas
from policies.engine.compiled import PolicySet
from policies.engine.types import ABSENT, Context, Principal, Target
from policies.services import keys as key_acts
from policies.services import policy as policy_acts
from policies.simulate.explain import Explanation, explain_known
from policies.simulate.recorded import replay
from policies.specs import numbered

MOST_ROWS = 20


class Command(BaseCommand):
    """Applies, exports, checks, compares, tests, explains and replays policies."""

    help = (
        "Applies, exports, checks, compares, tests, explains and replays policies. docs/policy.md tells the language."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the sub-commands."""
        acts = parser.add_subparsers(dest="act", required=True, metavar="ACT")

        apply = acts.add_parser("apply", help="make a file the whole of roles, rules, limits and audit levels")
        _file(apply)
        apply.add_argument("--dry-run", action="store_true", help="only list what would change")
        _json(apply)

        export = acts.add_parser("export", help="write the stored policy as a file would say it")
        export.add_argument("--output", metavar="FILE", help="where to write it (standard output)")
        _json(export)

        check = acts.add_parser("check", help="read a file and compile it, changing nothing")
        _file(check)
        _json(check)

        diff = acts.add_parser("diff", help="show the difference between the stored policy and a file")
        _file(diff)
        diff.add_argument("--exit-code", action="store_true", help="end with 1 when they differ")
        _json(diff)

        test = acts.add_parser("test", help="run test cases (who, what, expected) against a policy")
        test.add_argument("file", metavar="FILE", help="the cases; a member `policy` names the policy's file")
        test.add_argument("--policy", metavar="FILE", help="the policy, in place of the one the cases name")
        _json(test)

        why = acts.add_parser("explain", help="say why a call is allowed or denied")
        who = why.add_mutually_exclusive_group(required=True)
        who.add_argument("--key", metavar="ID", help="id, visible part, or name of a key")
        who.add_argument("--role", help="any key of this role")
        what = why.add_mutually_exclusive_group(required=True)
        for kind in vocabulary.KINDS:
            what.add_argument(f"--{kind}", metavar="NAME", help=f"the {kind}'s name as the call has it")
        why.add_argument("--upstream", metavar="SLUG", default="", help="the upstream it is on")
        why.add_argument("--args", dest="arguments", metavar="JSON", help="the call's arguments (none)")
        why.add_argument("--annotations", metavar="JSON", help="the tool's own annotations (those of the catalogue)")
        why.add_argument("--ip", help="the caller's address")
        why.add_argument("--at", metavar="TIME", help="a moment like 2026-12-24T18:00:00Z (now)")
        _json(why)

        again = acts.add_parser("replay", help="decide recorded events again under a draft, and show what would change")
        _file(again)
        again.add_argument("--since", metavar="SPAN", default="7d", help="how far back, like 7d or 12h (7d)")
        _json(again)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one act; what is refused is told in one line."""
        try:
            getattr(self, f"act_{options['act']}")(options)
        except DocumentError as error:
            raise CommandError(f"{options.get('file')}: {_some(error.problems)}") from error
        except ValidationError as error:
            raise CommandError(_some(error.messages)) from error
        except OSError as error:
            raise CommandError(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from error
        except ValueError as error:
            raise CommandError(str(error)) from error

    # -- a file and the stored policy

    def act_apply(self, options: dict[str, Any]) -> None:
        applied = policy_acts.apply_document(
            _document(options["file"]), actor=Actor.system(), dry_run=options["dry_run"], origin="command"
        )
        lines = applied.plan.lines()
        if options["json"]:
            told = {
                "changed": not applied.plan.empty,
                "dry_run": applied.dry_run,
                "changes": applied.plan.changes(),
                "policy_version": applied.version,
            }
            self.stdout.write(json.dumps(told))
            return
        self._lines(lines)
        if not lines:
            self.stdout.write(f"Nothing to change; the policy is at version {applied.version}.")
        elif applied.dry_run:
            self.stdout.write(f"{_count(len(lines), 'change')} would be made. Nothing was changed.")
        else:
            self.stdout.write(f"{_count(len(lines), 'change')} made; the policy is at version {applied.version}.")

    def act_export(self, options: dict[str, Any]) -> None:
        text = policy_acts.export()
        if options["json"]:
            text = json.dumps(yaml.safe_load(text), default=str) + "\n"
        if options["output"]:
            Path(options["output"]).write_text(text, encoding="utf-8")
        else:
            self.stdout.write(text, ending="")

    def act_check(self, options: dict[str, Any]) -> None:
        try:
            spec = _document(options["file"]).spec
            PolicySet(numbered(spec))
        except (DocumentError, ValueError) as error:
            if options["json"]:
                found = error.problems if isinstance(error, DocumentError) else [str(error)]
                self.stdout.write(json.dumps({"valid": False, "problems": found}))
            raise
        problems: list[str] = []
        try:
            problems = schemas.complaints(spec.rules)
        except OperationalError:
            self.stderr.write("The database does not answer, so conditions were not held against the tools' schemas.")
        if problems:
            if options["json"]:
                self.stdout.write(json.dumps({"valid": False, "problems": problems}))
            raise CommandError(f"{options['file']}: {_some(problems)}")
        counts = {
            "roles": len(spec.roles),
            "rules": len(spec.rules),
            "limits": len(spec.limits),
            "audit": len(spec.audit),
        }
        if options["json"]:
            self.stdout.write(json.dumps({"valid": True, **counts}))
        else:
            said = ", ".join(_count(n, w.rstrip("s") if w != "audit" else "audit level") for w, n in counts.items())
            self.stdout.write(f"{options['file']} is a valid policy: {said}.")

    def act_diff(self, options: dict[str, Any]) -> None:
        """Compare a document with the stored policy."""
        text = text_diff(policy_acts.current_spec(), _document(options["file"]).spec)
        if options["json"]:
            self.stdout.write(json.dumps({"differs": bool(text), "diff": text.splitlines()}))
        elif text:
            self.stdout.write(text)
        if text and options["exit_code"]:
            sys.exit(1)

    # -- what a policy decides

    def act_test(self, options: dict[str, Any]) -> None:
        named, found = cases.parse_cases(_read(options["file"]))
        if not found:
            raise CommandError(f"{options['file']}: there are no cases")
        path = options["policy"] or (str(Path(options["file"]).parent / named) if named else "")
        policy = PolicySet(numbered(_document(path).spec) if path else policy_acts.current_spec())
        outcomes = [cases.run(policy, case) for case in found]
        failed = [outcome for outcome in outcomes if outcome.problem]
        if options["json"]:
            told = [{"where": o.case.where, "name": o.case.name, "problem": o.problem} for o in failed]
            self.stdout.write(json.dumps({"passed": len(outcomes) - len(failed), "failed": len(failed), "cases": told}))
        else:
            self._lines(f"FAILED  {o.case.where}: {o.case.name}: {o.problem}" for o in failed)
            self.stdout.write(f"{len(outcomes) - len(failed)} of {_count(len(outcomes), 'case')} passed.")
        if failed:
            raise CommandError(f"{_count(len(failed), 'case')} failed")

    def act_explain(self, options: dict[str, Any]) -> None:
        policy = PolicySet(policy_acts.current_spec())
        principal, notes = _principal(options, policy)
        kind = next(kind for kind in vocabulary.KINDS if options[kind] is not None)
        arguments = _parsed(options["arguments"], "--args") if options["arguments"] is not None else ABSENT
        annotations = _parsed(options["annotations"], "--annotations") if options["annotations"] else None
        at = _moment(options["at"]) if options["at"] else time.time()
        target = Target(kind, options["upstream"], options[kind], arguments, annotations)
        explanation, known = explain_known(policy, principal, target, Context(at, options["ip"]))
        if options["upstream"] and not known.upstream:
            notes.append(f"There is no upstream {options['upstream']}, or it is disabled: every call is answered 404.")
        if known.blocked:
            notes.append("Its definition waits for approval: whatever the rules say, calls are refused.")
        if known.dispatches:
            notes.append(f"It calls other tools by name ({known.dispatches}): a call needs what those need too.")
        if options["json"]:
            self.stdout.write(json.dumps({**explanation.as_dict(), "notes": notes}))
            return
        self._lines(notes)
        self._lines(_told(explanation))

    def act_replay(self, options: dict[str, Any]) -> None:
        since = timezone.now() - parse_duration(options["since"])
        draft = _document(options["file"]).spec
        shown = sys.stderr.isatty() and not options["json"]

        def progress(done: int, of: int) -> None:
            if shown:
                sys.stderr.write(f"\r{done * 100 // of:3d} %" if done < of else "\r     \r")
                sys.stderr.flush()

        report = replay(draft, since=since, progress=progress).as_dict()
        report = {"since": since.isoformat(), **report}
        if options["json"]:
            self.stdout.write(json.dumps(report))
            return
        self.stdout.write(
            f"{_count(report['decided'], 'event')} decided again: {report['changed']} would change "
            f"({report['newly_denied']} newly denied, {report['newly_allowed']} newly allowed); "
            f"{report['undecidable']} cannot be decided."
        )
        self.stdout.write(
            f"  the draft changes {report['changed_by_draft']} against the present policy; "
            f"{report['changed_since']} were changed since by the present policy itself"
        )
        self._lines(f"  cannot be decided: {n} ({why})" for why, n in report["undecidable_because"].items())
        for group in report["groups"][:MOST_ROWS]:
            who = f"{group['key_name'] or group['key_prefix']} ({group['role']})"
            what = f"{group['kind']} {group['name']} on {group['upstream']}"
            why = group["rule"] or group["reason"]
            now = f" (now {group['now']})" if group["now"] not in (None, group["from"]) else ""
            self.stdout.write(f"  {group['count']:>8}  {who}: {what}: {group['from']}{now} -> {group['to']}: {why}")
        for group in report["undone"][:MOST_ROWS]:
            what = f"{group['kind']} {group['name']} on {group['upstream']}"
            self.stdout.write(
                f"  {group['count']:>8}  {group['key_name']}: {what}: {group['from']} then, {group['now']} now, and as then again"
            )
        if len(report["groups"]) > MOST_ROWS:
            self.stdout.write(f"  and {len(report['groups']) - MOST_ROWS} more groups; --json tells all")

    def _lines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.stdout.write(line)


def _principal(options: dict[str, Any], policy: PolicySet) -> tuple[Principal, list[str]]:
    """Who is asked about, and what should be said of the key itself."""
    if options["role"] is not None:
        if options["role"] not in policy.roles:
            raise CommandError(f"there is no role {options['role']}; there are {', '.join(sorted(policy.roles))}")
        return Principal(None, "", "", options["role"]), []
    return key_acts.asked_about(key_acts.find(options["key"]))


def _told(explanation: Explanation) -> list[str]:
    decision = explanation.decision
    verdict = "Allowed" if decision.allowed else "Denied"
    rule = f" by rule {decision.rule.id} ({explanation.rule_label})" if decision.rule else ""
    lines = [f"{verdict}: {decision.reason}{rule}; policy version {decision.policy_version}."]
    if not decision.allowed:
        lines.append(f"The caller is told: {decision.message}")
        lines.append("A list shows it." if explanation.listed else "A list hides it.")
    if explanation.example is not None:
        lines.append(f"These arguments would be allowed: {json.dumps(explanation.example, default=str)}")
    lines += [f"Could not be decided: rule {ref.id}" for ref in decision.errors]
    lines += [f"Only observes: {label}" for label in explanation.observed]
    for near in explanation.near:
        lines += [f"Came close: rule {near.rule.id} ({near.label})", *(f"    {why}" for why in near.why)]
    lines += [f"Counts: {limit.label()}" for limit in explanation.limits]
    if explanation.audit_level:
        lines.append(f"Events keep: {explanation.audit_level}")
    return lines


def _parsed(text: str, what: str) -> Any:
    try:
        value = json_decimals.loads(text)
    except ValueError as error:
        raise CommandError(f"{what} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise CommandError(f"{what} is a JSON object")
    return value


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise CommandError(f"--at is a moment like 2026-12-24T18:00:00Z, not {text!r}")
    return found


def _read(path: str) -> str:
    data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CommandError(f"{path}: not UTF-8 at byte {error.start}") from None


def _document(path: str) -> Document:
    text = _read(path)
    if all(line.strip() in ("", "---") or line.lstrip().startswith("#") for line in text.splitlines()):
        raise CommandError(f"{path}: there is nothing in it; a policy without anything is written {{}}")
    return parse(text)


def _some(problems: list[str]) -> str:
    shown = "; ".join(" ".join(problem.split()) for problem in problems[:5])
    return shown if len(problems) <= 5 else f"{shown}; and {len(problems) - 5} more"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _file(parser: ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a policy in YAML; - reads standard input")


def _json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
