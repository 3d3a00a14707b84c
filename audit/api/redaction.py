"""What administrators ask to have redacted, one by one; the acts are those of the admin and of the commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from audit.api.serializers import RedactionRuleChangeSerializer, RedactionRuleSerializer
from audit.export.formats import moment
from audit.models import RedactionRule
from audit.services import redaction_rules
from core.access.actors import Actor
from core.api.problems import Problem
from core.api.resources import Resource

__all__ = ["RedactionRuleResource"]


class RedactionRuleResource(Resource):
    """Redaction rules that were added here."""

    name, names = "RedactionRule", "RedactionRules"
    words, plural, tag = "a redaction rule", "redaction rules", "redaction"
    model = "audit.redactionrule"
    change, answer = RedactionRuleChangeSerializer, RedactionRuleSerializer
    about = {
        "list": "Those that were added here; what is always redacted is not among them.",
        "create": "In force in every worker within a second; what is stored already stays as it is. A pattern that does not"
        " compile, matches the empty text or finds something in most ordinary texts is refused.",
        "delete": "From now on it is kept in events as it is sent; what was redacted stays redacted.",
    }

    def all(self, query: Mapping[str, Any]) -> Any:
        return RedactionRule.objects.all()

    def find(self, pk: int, *, lock: bool = False) -> RedactionRule:
        """Return a stored rule, or say that there is none."""
        rules = RedactionRule.objects.select_for_update() if lock else RedactionRule.objects.all()
        rule = rules.filter(pk=pk).first()
        if rule is None:
            raise Problem("not_found", "There is no such redaction rule.")
        return rule

    def shown(self, thing: RedactionRule) -> dict[str, Any]:
        """Return a rule as it is answered."""
        return {"id": thing.pk, **redaction_rules.shown(thing), "created_at": moment(thing.created_at)}

    def add(self, asked: dict[str, Any], actor: Actor) -> int:
        return int(redaction_rules.create_rule(actor=actor, **asked).pk)

    def update(self, thing: RedactionRule, asked: dict[str, Any], actor: Actor) -> None:
        redaction_rules.change_rule(thing.pk, actor=actor, **asked)

    def remove(self, thing: RedactionRule, actor: Actor) -> None:
        redaction_rules.delete_rule(thing.pk, actor=actor)
