"""Every reason that the code can give has its row, every row is of use, and documents say what the rows say."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from audit.events import sentences
from audit.models import Outcome
from audit.reasons import REASONS, Reason, answering, words
from core.api.problems import CODES
from policies.engine import types
from proxy.http.refusals import IN_BAND
from proxy.upstreams.health import FAULTS
from proxy.upstreams.transports.base import UpstreamError
from sentinel.api.refusals import RECORDED

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("core", "audit", "policies", "proxy", "sentinel")
REGISTRY = ROOT / "audit" / "reasons.py"

# Where a reason stands: the place among the arguments of what takes one, by name ...
TAKES = {
    "refuse": 0, "Refused": 0, "Unreadable": 0, "Departed": 0, "departed": 1, "_failed": 1, "_failure": 0, "stage": 1, "shut": 0,
    "cancel": 1, "end": 0, "AuthResult": 1, "Decision": 1, "LimitAnswer": 1, "_not": 1, "answering": 0, "words": 0,
}  # fmt: skip
# ... what is called so, and what gives one back.
NAMED = {"reason", "failure"}
GIVES = {"judge", "refusal"}
# What stands in such a place, and is none: results of stages, ends within the gateway, and words of details alone.
NONE = {"", "ok", "skipped", "cancelling", "too_many_values"}
# Where the same words are of other things: bytes that are no request and leave no event, filters by their names, eras.
ELSEWHERE = {
    "sentinel/server/http_protocol.py", "audit/filters.py", "audit/management/reading.py", "proxy/upstreams/probe.py",
}  # fmt: skip
# Whose `end` ends a request, and not a match.
ENDS = {"exchange", "self", "super", "link"}
PATTERN = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")


@cache
def sources() -> dict[str, ast.Module]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if path != REGISTRY and "/migrations/" not in name and name not in ELSEWHERE:
                found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def constants(trees: list[ast.Module]) -> dict[str, str]:
    """What module-level names stand for, all modules together."""
    found = {}
    for tree in trees:
        for node in tree.body:
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    pairs = (
                        zip(target.elts, node.value.elts, strict=False)
                        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
                        else [(target, node.value)]
                    )
                    for name, value in pairs:
                        if isinstance(name, ast.Name) and isinstance(value, ast.Constant):
                            found[name.id] = value.value
    return {name: value for name, value in found.items() if isinstance(value, str)}


def named(node: ast.AST) -> str:
    """The last part of a name: `reason` of `call.reason` and of `record["reason"]`."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        return str(node.slice.value)
    return str(node.value) if isinstance(node, ast.Constant) else ""


def owner(node: ast.Attribute) -> str:
    return named(node.value.func) if isinstance(node.value, ast.Call) else named(node.value)


def places(tree: ast.Module) -> Iterator[ast.expr]:
    """The expressions that stand where a reason does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            place = TAKES.get(named(node.func))
            if named(node.func) == "end" and isinstance(node.func, ast.Attribute) and owner(node.func) not in ENDS:
                place = None
            if place is not None and len(node.args) > place:
                yield node.args[place]
            yield from (keyword.value for keyword in node.keywords if keyword.arg in NAMED)
        elif isinstance(node, ast.Dict):
            yield from (v for k, v in zip(node.keys, node.values, strict=True) if k is not None and named(k) in NAMED)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            value = node.value
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                    yield from (v for t, v in zip(target.elts, value.elts, strict=False) if named(t) in NAMED)
                elif named(target) in NAMED and value is not None:
                    yield value
        elif isinstance(node, ast.Compare) and named(node.left) in NAMED:
            yield from node.comparators
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args.args[len(node.args.args) - len(node.args.defaults) :]
            yield from (value for name, value in zip(given, node.args.defaults, strict=True) if name.arg in NAMED)
            if node.name in GIVES:
                yield from (part.value for part in ast.walk(node) if isinstance(part, ast.Return) and part.value)


def values(node: ast.expr, known: dict[str, str]) -> Iterator[str]:
    """What an expression can be, as far as it is written there."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Name | ast.Attribute) and named(node) in known and named(node).isupper():
        yield known[named(node)]
    elif isinstance(node, ast.IfExp):
        yield from [*values(node.body, known), *values(node.orelse, known)]
    elif isinstance(node, ast.BoolOp | ast.Tuple | ast.Set | ast.List):
        for part in node.values if isinstance(node, ast.BoolOp) else node.elts:
            yield from values(part, known)


def unknown(trees: dict[str, ast.Module]) -> set[tuple[str, str]]:
    """The reasons that have no row, and where they stand."""
    known = constants(list(trees.values()))
    found = {(name, value) for name, tree in trees.items() for place in places(tree) for value in values(place, known)}
    return {(name, value) for name, value in found if value not in {*REASONS, *NONE} and PATTERN.fullmatch(value)}


def test_the_code_gives_no_reason_that_has_no_row() -> None:
    assert unknown(sources()) == set()


@pytest.mark.parametrize(
    "line",
    [
        "raise refuse('odd', call=call)", "raise Unreadable('odd', 'It is odd.')", "call.exchange.end('odd')",
        "call.outcome, call.reason = 'denied', 'odd'", "record['outcome'], record['reason'] = 'denied', 'odd'",
        "class Odd(UpstreamError):\n    reason = 'odd'", "class Odd:\n    reason: str = 'odd'", "Event(reason=ODD)\nODD = 'odd'",
        "Event(reason='no_rule' if x else 'odd')", "made.gaps.append({'reason': 'odd', 'count': 1})",
        "failure = cors.refusal(call) or 'odd'", "if call.reason in ('no_rule', 'odd'): pass", "return_ = call.stage('parse', 'odd', 0)",
        "def judge(call):\n    return '' if call else 'odd'", "def shut(self, reason='odd'): pass", "Decision(False, 'odd', None, '', 0)",
    ],
)  # fmt: skip
def test_one_that_has_none_is_found(line: str) -> None:
    assert unknown({"x.py": ast.parse(line)}) == {("x.py", "odd")}
    assert unknown({"x.py": ast.parse(line.replace("'odd'", "'no_rule'"))}) == set()


def test_every_row_is_of_use() -> None:
    said = {node.value for tree in sources().values() for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert set(REASONS) - said == set()


def test_rows_are_whole() -> None:
    assert len(REASONS) == len(
        re.findall(r'^    (?:Reason|_bad_key|_malformed)\("', REGISTRY.read_text(), re.MULTILINE)
    )
    for row in REASONS.values():
        assert PATTERN.fullmatch(row.code), row
        assert row.outcome in Outcome.values, row
        assert row.words and row.words[0].islower() and not row.words.endswith("."), row
        assert bool(row.status) == bool(row.rpc) == bool(row.message), row
        assert not row.message or (row.message[0].isupper() and row.message.endswith(".")), row
        assert (row.rpc == row.status) == (row.rpc >= 0) and row.status in (0, *range(400, 600)), row
        assert not row.told_as or REASONS[row.told_as].told_as == row.told_as, row
        assert row.retry is None or row.status in IN_BAND, row


# The outcome of each reason that is not `invalid`, which all are that say what is wrong with a request.
OUTCOMES = {
    "allowed": "allowed_by_rule open_method answered_late answered_again",
    "unauthenticated": "missing_credential invalid_credential expired_key revoked_key wrong_network query_forbidden administrative_key",
    "denied": "no_rule denied_by_rule policy_error ambiguous_target nested_call tool_definition_changed policy_stale",
    "limited": "rate_limited too_much_traffic too_many_streams too_much_waiting limiter_unavailable",
    "upstream_error": "upstream_unreachable upstream_timeout upstream_broken upstream_redirect upstream_too_large upstream_busy "
    "upstream_error egress_refused upstream_refused",
    "cancelled": "client_gone cancelled revoked_during_stream denied_during_stream upstream_changed",
    "interrupted": "server_stopping process_died internal_error",
    "unrecorded": "audit_unavailable journal_damaged",
    "changed": "agent_key permission_denied csrf_failed second_factor_required command_refused",
}


def test_each_reason_has_its_outcome() -> None:
    wanted = {reason: outcome for outcome, reasons in OUTCOMES.items() for reason in reasons.split()}
    assert {row.code: row.outcome for row in REASONS.values() if row.outcome != "invalid"} == wanted


def test_what_a_caller_is_told_of_a_bad_key_is_one_and_the_same() -> None:
    alike = [row for row in REASONS.values() if row.told_as]
    assert {row.told_as for row in alike} == {"invalid_credential"} and len(alike) == 7
    assert len({(row.status, row.rpc, row.message, row.retry) for row in alike}) == 1


@pytest.mark.parametrize("kind", sorted({*UpstreamError.__subclasses__()} | {UpstreamError}, key=lambda k: k.__name__))
def test_each_failure_of_an_upstream_has_a_row(kind: type[UpstreamError]) -> None:
    kinds = [kind, *kind.__subclasses__()]
    assert all(each.reason in REASONS and not hasattr(each, "status") for each in kinds)
    assert {answering(each.reason).code for each in kinds} <= {*(each.reason for each in kinds), "internal_error"}


def test_what_counts_as_the_upstreams_fault_ends_as_its_failure() -> None:
    assert {REASONS[code].outcome for code in FAULTS} == {"upstream_error"}


def test_each_reason_of_policy_is_a_constant_of_the_engine() -> None:
    own = {
        value for name, value in vars(types).items() if name.isupper() and isinstance(value, str) and value in REASONS
    }
    wanted = {row.code for row in REASONS.values() if row.outcome == "denied"} - {"policy_stale"}
    assert own == wanted | {"allowed_by_rule", "open_method"}


def test_what_the_api_refuses_and_records_has_words() -> None:
    assert {code for code, (status, *_) in CODES.items() if status in RECORDED} - set(REASONS) == set()


def test_a_code_that_is_no_more_is_shown_as_it_is() -> None:
    assert words("no_rule") == "no rule allows it" and words("an_old_one") == "an old one"


def test_what_is_malformed_is_what_was_sent() -> None:
    rows: list[Reason] = [row for row in REASONS.values() if row.malformed]
    assert {(row.outcome, row.status) for row in rows} == {("invalid", 400)}
    assert sentences.WENT_ON >= {"", "ok", "skipped", "allowed_by_rule", "open_method"} and not sentences.WENT_ON & {
        row.code for row in REASONS.values() if row.status
    }


def test_the_documents_name_what_there_is() -> None:
    keys = (ROOT / "docs" / "keys.md").read_text(encoding="utf-8")
    listed = re.search(r"the event has the reason:\n(.*?)\.\n", keys, re.DOTALL)
    assert listed is not None
    bad = {row.code for row in REASONS.values() if row.told_as and row.outcome == "unauthenticated"}
    assert re.findall(r"`(\w+)`", listed[1]) == [code for code in REASONS if code in bad]
    protocol = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    alone = re.search(r"refusals and failures of a call go out \(([\d, ]+)\)", protocol)
    assert alone is not None and {int(status) for status in alone[1].split(", ")} == IN_BAND
    for page in sorted((ROOT / "docs").glob("*.md")):
        for status, code in re.findall(r"\b([45]\d\d) `([a-z_]+)`", page.read_text(encoding="utf-8")):
            row = REASONS.get(code)
            wanted = {row.status if row is not None else 0, *(CODES[code][:1] if code in CODES else ())}
            assert int(status) in wanted, (page.name, status, code)
