"""What administrators ask to have redacted, one by one; the acts are those of the admin and of the commands."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from rest_framework.request import Request
from rest_framework.response import Response

from audit.api.serializers import RedactionRuleChangeSerializer, RedactionRuleSerializer
from audit.export.formats import moment
from audit.models import RedactionRule
from audit.services import redaction_rules
from core.api.fields import read
from core.api.problems import Problem
from core.api.views import FIELDS, ApiView, Operation, actor_of, paging

__all__ = ["OneRedactionRule", "RedactionRules"]

TAG = "redaction"


def rule_form(rule: RedactionRule) -> dict[str, Any]:
    """Return a rule as it is answered."""
    return {"id": rule.pk, **redaction_rules.shown(rule), "created_at": moment(rule.created_at)}


def rule_of(pk: int, *, lock: bool = False) -> RedactionRule:
    """Return a stored rule, or say that there is none; locked, nobody changes it until the transaction ends."""
    rules = RedactionRule.objects.select_for_update() if lock else RedactionRule.objects.all()
    rule = rules.filter(pk=pk).first()
    if rule is None:
        raise Problem("not_found", "There is no such redaction rule.")
    return rule


class RedactionRules(ApiView):
    """All redaction rules."""

    #: does a creation once for each Idempotency-Key; given by the site, because the record of them is not of the log
    once: Any = None
    operations = {
        "get": Operation(
            id="listRedactionRules",
            tag=TAG,
            summary="List redaction rules",
            description="Those that were added here; what is always redacted is not among them.",
            permissions=("audit.view_redactionrule",),
            query=paging(),
            response=RedactionRuleSerializer,
            page=True,
        ),
        "post": Operation(
            id="createRedactionRule",
            tag=TAG,
            summary="Add a redaction rule",
            description="In force in every worker within a second; what is stored already stays as it is. A pattern that does "
            "not compile, matches the empty text or finds something in most ordinary texts is refused.",
            permissions=("audit.add_redactionrule",),
            request=RedactionRuleChangeSerializer,
            response=RedactionRuleSerializer,
            status=201,
            creates=True,
        ),
    }

    def get(self, request: Request) -> Response:
        """Return one page."""
        return self.page_of(RedactionRule.objects.all(), rule_form)

    def post(self, request: Request) -> Response:
        """Add one."""
        asked = read(RedactionRuleChangeSerializer, request.data)

        def act() -> Response:
            made = redaction_rules.create_rule(actor=actor_of(request), **asked)
            return self.made(rule_form(rule_of(made.pk)), made.pk)

        answer: Response = self.once(request, act)
        return answer


class OneRedactionRule(ApiView):
    """One redaction rule."""

    operations = {
        "get": Operation(
            id="getRedactionRule",
            tag=TAG,
            summary="Read a redaction rule",
            permissions=("audit.view_redactionrule",),
            query=(FIELDS,),
            response=RedactionRuleSerializer,
            problems=(404,),
        ),
        "patch": Operation(
            id="changeRedactionRule",
            tag=TAG,
            summary="Change a redaction rule",
            permissions=("audit.change_redactionrule",),
            request=RedactionRuleChangeSerializer,
            response=RedactionRuleSerializer,
            problems=(404, 409),
            conditional=True,
        ),
        "delete": Operation(
            id="deleteRedactionRule",
            tag=TAG,
            summary="Delete a redaction rule",
            description="From now on it is kept in events as it is sent; what was redacted stays redacted.",
            permissions=("audit.delete_redactionrule",),
            status=204,
            problems=(404, 409),
            conditional=True,
        ),
    }

    def get(self, request: Request, pk: int) -> Response:
        """Return it."""
        return self.one(rule_form(rule_of(pk)))

    @transaction.atomic
    def patch(self, request: Request, pk: int) -> Response:
        """Change it in place."""
        asked = read(RedactionRuleChangeSerializer, request.data, partial=True)
        self.check_match(rule_form(rule_of(pk, lock=True)))
        redaction_rules.change_rule(pk, actor=actor_of(request), **asked)
        return self.one(rule_form(rule_of(pk)))

    @transaction.atomic
    def delete(self, request: Request, pk: int) -> Response:
        """Remove it."""
        self.check_match(rule_form(rule_of(pk, lock=True)))
        redaction_rules.delete_rule(pk, actor=actor_of(request))
        return Response(status=204)
