"""A plain member of a rule or a limit is one row of a table: whatever its rows are, everybody who goes by them keeps them."""

from dataclasses import replace

import pytest

from core.access.actors import Actor
from core.access.members import MEMBERS
from core.api.fields import read
from policies.api.limits import limit_form, read_limit
from policies.api.rules import read_rule, rule_form
from policies.api.serializers.rules import LimitChangeSerializer, RuleChangeSerializer
from policies.documents.diff import plan
from policies.documents.json_schema import schema
from policies.documents.reader import parse
from policies.documents.sentences import limit_sentence, rule_sentence
from policies.documents.writer import render
from policies.forms.rules import LimitForm, RuleForm, limit_initial, rule_initial
from policies.members import Flag, TextMember, WholeMember, Word, Words
from policies.services.policy import create_limit, create_rule, current_spec, update_limit, update_rule
from policies.specs import LIMIT, RULE, LimitSpec, PolicySpec, RuleSpec, plain

RULE_AS_IT_IS = RuleSpec("allow", ("tool",), "x", None)
LIMIT_AS_IT_IS = LimitSpec(9, 60, per=("key",), kind="tool")
CASES = [(RULE_AS_IT_IS, row) for row in RULE] + [(LIMIT_AS_IT_IS, row) for row in LIMIT]
each_row = pytest.mark.parametrize(
    ("spec", "row"), CASES, ids=[f"{type(spec).__name__}.{row.name}" for spec, row in CASES]
)


def other(spec, row):
    """The same with another value of this member."""
    match row:
        case TextMember():
            value = "another"
        case WholeMember():
            value = 7
        case Flag():
            value = not getattr(spec, row.name)
        case Word():
            value = row.words[-1]
        case Words():
            value = row.words[1:3]
    assert value != getattr(spec, row.name)
    return replace(spec, **{row.name: value})


def policy(spec):
    return PolicySpec(rules=(spec,)) if isinstance(spec, RuleSpec) else PolicySpec(limits=(spec,))


@each_row
def test_a_document_says_it_and_its_schema_knows_it(spec, row):
    changed = policy(other(spec, row))
    assert row.called in render(changed)
    assert parse(render(changed)).spec == changed
    assert not plan(policy(spec), changed).empty
    known = schema()["properties"]
    known = known["rules"] if isinstance(spec, RuleSpec) else known["rate_limits"]["properties"]["limits"]
    assert row.called in known["items"]["properties"]
    sentence = rule_sentence if isinstance(spec, RuleSpec) else limit_sentence
    assert (sentence(other(spec, row)) != sentence(spec)) or not (row.says or isinstance(row, Flag))


@each_row
def test_the_api_takes_it_and_answers_it(spec, row):
    changed = other(spec, row)
    if isinstance(spec, RuleSpec):
        asked = read(RuleChangeSerializer, {row.name: rule_form(changed)[row.name]}, partial=True)
        assert read_rule(asked, spec, PolicySpec()) == changed
    else:
        asked = read(LimitChangeSerializer, {row.name: limit_form(changed)[row.name]}, partial=True)
        assert read_limit(asked, spec, PolicySpec()) == changed
    assert MEMBERS["rule" if isinstance(spec, RuleSpec) else "ratelimit"][row.name]


@pytest.mark.django_db
@each_row
def test_a_form_shows_it_and_reads_it_back(spec, row):
    changed = other(spec, row)
    if isinstance(spec, RuleSpec):
        form = RuleForm(rule_initial(changed))
        assert form.is_valid() and form.spec(()) == changed
    else:
        form = LimitForm(limit_initial(changed))
        assert form.is_valid() and form.spec() == changed


@pytest.mark.django_db
@each_row
def test_the_database_keeps_it(spec, row):
    changed, me = other(spec, row), Actor.system()
    if isinstance(spec, RuleSpec):
        update_rule(made := create_rule(spec, actor=me), changed, actor=me)
        found = current_spec().rules
    else:
        update_limit(made := create_limit(spec, actor=me), changed, actor=me)
        found = current_spec().limits
    assert [one for one in found if one.id == made] == [replace(changed, id=made)]
    assert plain(changed)[row.name] != plain(spec)[row.name]
