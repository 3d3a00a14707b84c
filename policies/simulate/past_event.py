"""A past event beside what policy says today: what was decided then, and the call as far as it was kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import transaction
from django.http import HttpRequest

from audit.models import AuditEvent
from audit.reasons import words
from audit.redaction import json_digits
from audit.services.acts import record
from policies.models import ApiKey, Rule
from policies.simulate.replay import altered_anywhere

__all__ = ["Past", "past"]

NOT_YOURS = "Its arguments are for auditors, so the call is asked about without them."
NOT_KEPT = "Its arguments were not kept, so the call is asked about without them."
TRUNCATED = "Its arguments were too large to be kept whole, so the call is asked about without them."
ALTERED = "Something in its arguments was redacted or shortened in the log; where a condition looks at that, the answer may differ."
NONE_SENT = ""


@dataclass(frozen=True, slots=True)
class Past:
    """What was decided of one event, and what its call is asked with today."""

    id: UUID
    ts: Any
    outcome: str
    failed: bool
    reason: str
    #: what policy said, None where it was not asked
    allowed: bool | None
    rule: int | None
    rule_name: str
    rule_there: bool
    version: int | None
    limit: dict[str, Any]
    role: str
    fields: dict[str, str]
    #: why the arguments of today's question are not those of the call, "" when they are
    lacking: str
    note: str

    @property
    def why(self) -> str:
        return words(self.reason)

    @property
    def limited(self) -> bool:
        """Whether a limit refused it, and no rule."""
        return self.outcome == "limited"


def past(request: HttpRequest, value: str) -> Past | None:
    """Read the event that an explanation is asked beside; a look at its arguments is an event itself."""
    try:
        wanted = UUID(value)
    except ValueError:
        return None
    if not request.user.has_perm("audit.view_auditevent"):
        return None
    found = AuditEvent.objects.filter(pk=wanted)
    may_see = request.user.has_perm("audit.view_payload")
    event: Any = (found.with_text() if may_see else found.without_payloads()).first()
    if event is None or event.outcome in ("changed", "unrecorded"):
        return None
    arguments, lacking, note = _arguments(event) if may_see else ("", NOT_YOURS, "")
    if event.target_kind not in ("tool", "prompt"):
        arguments, lacking, note = "", NONE_SENT, ""  # only these have arguments that a rule can ask about
    if arguments and "arguments" not in request.GET:
        with transaction.atomic():
            looked = {"first": str(event.id), "last": str(event.id), "count": 1, "for": "explain"}
            record("admin.payloads.viewed", request, target=str(event.id), details=looked)
    decision = event.decision if isinstance(event.decision, dict) else {}
    details = event.details if isinstance(event.details, dict) else {}
    said = decision.get("rule")
    rule = said if isinstance(said, dict) else {}
    number = rule.get("id") if isinstance(rule.get("id"), int) else None
    limit = details.get("limit")
    key = ApiKey.objects.filter(pk=event.api_key_id).exists() if event.api_key_id else False
    return Past(
        id=event.id,
        ts=event.ts,
        outcome=event.outcome,
        failed=event.failed,
        reason=event.reason,
        allowed=decision.get("allowed"),
        rule=number,
        rule_name=str(rule.get("name") or ""),
        rule_there=number is not None and Rule.objects.filter(pk=number).exists(),
        version=decision.get("policy_version") or None,
        limit=limit if isinstance(limit, dict) else {},
        role=event.role,
        fields={
            "key": str(event.api_key_id) if key else "",
            "role": "" if key else event.role,
            "upstream": event.upstream,
            "kind": event.target_kind or "tool",
            "tool": (event.tool_name if event.tool_name is not None else event.method),
            "arguments": arguments,
            "ip": event.client_ip or "",
        },
        lacking=lacking,
        note=note,
    )


def _arguments(event: Any) -> tuple[str, str, str]:
    """Return the call's arguments as JSON, why there are none to ask with, and what is doubtful of those there are."""
    if event.request_text is None:
        return "", NOT_KEPT, ""
    try:
        message = json_digits.loads(event.request_text)
    except ValueError:
        return "", NOT_KEPT, ""
    if not isinstance(message, dict) or message.get("_truncated") is True:
        return "", TRUNCATED, ""
    params = message.get("params", message)
    arguments = params.get("arguments") if isinstance(params, dict) else None
    if not isinstance(arguments, dict):
        return "", NONE_SENT, ""
    note = ALTERED if altered_anywhere(arguments) else ""
    return json_digits.dumps(arguments).decode("utf-8", "replace"), "", note
