"""What docs/policy.md and the schema for editors say is what the code does."""

import json
import re
from pathlib import Path

import jsonschema_rs
import pytest
import yaml

from policies import vocabulary
from policies.documents.json_schema import schema
from policies.documents.reader import DocumentError, parse
from policies.documents.writer import as_dict
from policies.engine.compiled import PolicySet
from policies.keys import credentials
from policies.specs import PolicySpec, numbered
from tests.policies.documents.test_document import ISSUE
from tests.policies.world import worlds

DOCS = Path(__file__).resolve().parents[3] / "docs"
BLOCKS = re.findall(r"```yaml\n(.*?)```", (DOCS / "policy.md").read_text(), re.S)
VALID = jsonschema_rs.validator_for(schema())


def test_the_schema_is_the_published_one():
    assert json.loads((DOCS / "policy.schema.json").read_text()) == schema()


@pytest.mark.parametrize("text", [*BLOCKS, ISSUE])
def test_every_example_is_a_policy(text):
    PolicySet(numbered(parse(text).spec))
    assert VALID.is_valid(json.loads(json.dumps(yaml.safe_load(text), default=lambda v: v.isoformat())))


def test_there_are_a_dozen_examples():
    assert max(len(parse(text).spec.rules) for text in BLOCKS) >= 12


def test_every_operator_is_documented():
    text = (DOCS / "policy.md").read_text()
    assert all(
        f"`{word}`" in text for word in (*vocabulary.OPERATORS, *vocabulary.JSON_TYPES, *vocabulary.AUDIT_LEVELS)
    )


def test_what_needs_no_rule_is_the_documented_list():
    section = (DOCS / "policy.md").read_text().partition("### What needs no rule")[2].partition("\n#")[0]
    rows = "".join(line for line in section.splitlines() if line.startswith(("| requests", "| notifications")))
    assert set(re.findall(r"`([^`]+)`", rows)) - {"subscriptions/listen"} == vocabulary.OPEN_METHODS


def test_the_regular_expression_is_the_documented_one():
    assert credentials.KEY_REGEX in (DOCS / "keys.md").read_text()


@pytest.mark.parametrize("text", ["role: {}", "roles: {a: {alow: []}}", "rules: [{effect: allow, tool: x}]", "rate_limits: {per_api_key: {requests: 0, window_seconds: 1}}",
                                  "rules: [{effect: allow, roles: '*', tool: x, when: [{argument: a, less: 1}]}]"])  # fmt: skip
def test_the_schema_refuses_what_the_reader_refuses(text):
    assert not VALID.is_valid(yaml.safe_load(text))
    with pytest.raises(DocumentError):
        parse(text)


def test_everything_that_is_written_is_valid():
    for world in worlds(100):
        spec = PolicySpec(
            rules=tuple(
                rule
                for rule in (world.rule() for _ in range(4))
                if not any(c.value == "\ud800" for c in rule.conditions)
            )
        )
        assert VALID.is_valid(as_dict(spec)), world.seed
