"""An event told as a sentence, and its decision stage by stage (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from audit.reasons import REASONS, answering, words

__all__ = ["Part", "Stage", "sentence", "stages"]

# Results of a stage after which a request goes on.
WENT_ON = frozenset(("", "ok", "skipped", *(row.code for row in REASONS.values() if row.outcome == "allowed")))
STAGES = {
    "authenticate": "Authenticate",
    "parse": "Parse",
    "authorize": "Authorize",
    "rate-limit": "Rate limit",
    "intent": "Record intent",
    "forward": "Forward",
    "audit": "Record outcome",
}
VERBS = {
    "denied": "was denied",
    "limited": "was held back from",
    "invalid": "sent a request that was refused",
    "upstream_error": "called",
    "cancelled": "called",
    "interrupted": "called",
    "allowed": "called",
}


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a sentence; names are set apart from words."""

    text: str
    name: bool = False


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a decision."""

    name: str
    result: str
    note: str
    us: float | None
    good: bool | None


def sentence(event: Any) -> list[Part]:
    decision = event.decision if isinstance(event.decision, Mapping) else {}
    said: list[Part] = []

    def say(text: str) -> None:
        said.append(Part(text))

    def name(text: str) -> None:
        said.append(Part(text, True))

    if event.outcome == "changed":
        name(event.key_name or "Somebody not known")
        say(" did ")
        name(event.method)
        if event.tool_name:
            say(" to ")
            name(event.tool_name)
        say(f": refused ({event.status_code})." if event.status_code >= 400 else ".")
        return said
    if event.outcome == "unrecorded":
        say("A gap: ")
        name(str(event.count))
        say(" events of ")
        name(f"{event.writer}.{event.boot}")
        say(" are known to have happened, and were lost with what kept them.")
        return said
    if event.count > 1:
        name(f"{event.count:,}")
        say(" requests like this one: ")
    if event.key_name or event.key_prefix:
        name(event.key_name or event.key_prefix)
        if event.role:
            say(" (role ")
            name(event.role)
            say(")")
    else:
        say("Somebody without a valid key")
        if event.client_ip:
            say(" at ")
            name(str(event.client_ip))
    if isinstance(event.details, Mapping) and "asked_on" in event.details:
        # The one event whose request came from the other side.
        return _of_the_server(event)
    target = event.tool_name if event.tool_name is not None else event.method
    if event.outcome == "unauthenticated":
        say(" asked for ")
        name(target or "something")
    elif event.outcome == "invalid":
        say(" sent a malformed request" if answering(event.reason).malformed else " sent a request that was refused")
        if target:
            say(": ")
            name(target)
    else:
        say(f" {VERBS.get(event.outcome, event.outcome)} ")
        name(target or "a request")
    if event.upstream:
        say(" on ")
        name(event.upstream)
    ends = {
        "unauthenticated": ", and was turned away",
        "upstream_error": ", which failed upstream",
        "cancelled": ", and it was cancelled",
        "interrupted": ", and it was cut off",
    }
    # Why it was allowed is not why it failed.
    said_it_failed = event.outcome == "allowed" and event.failed
    say(", which said that it failed" if said_it_failed else ends.get(event.outcome, ""))
    rule = decision.get("rule")
    if isinstance(rule, Mapping) and rule:
        say("; allowed by rule " if said_it_failed else ": rule ")
        label = str(rule.get("name") or "")
        name(f"{rule.get('id', '')}{f' “{label}”' if label else ''}")
        if event.reason and event.outcome not in ("allowed", "denied"):
            say(f"; {words(event.reason)}")
    elif event.reason:
        say(f"{'; ' if said_it_failed else ': '}{words(event.reason)}")
    if decision.get("policy_version"):
        say(", policy version ")
        name(str(decision["policy_version"]))
    say(".")
    return said


def _of_the_server(event: Any) -> list[Part]:
    who = event.key_name or event.key_prefix
    said = [Part(event.upstream, True), Part(" asked "), Part(who, True), Part(" for "), Part(event.method, True)]
    if event.outcome == "denied":
        said += [Part(f", and was refused: {words(event.reason)}")]
    return [*said, Part(".")]


def stages(event: Any) -> list[Stage]:
    """Return the decision stage by stage, as far as it came."""
    decision = event.decision if isinstance(event.decision, Mapping) else {}
    found = []
    listed = decision.get("stages")
    for entry in listed if isinstance(listed, list) else []:
        if not isinstance(entry, Mapping):
            continue
        stage, result = str(entry.get("stage", "")), str(entry.get("result", ""))
        settled = result not in WENT_ON
        good = None if result in ("", "skipped") else not settled
        rest = {key: value for key, value in entry.items() if key not in ("stage", "result", "us", "reason")}
        note = words(str(entry["reason"])) if entry.get("reason") else words(event.reason) if settled else ""
        note += "".join(f"{'; ' if note else ''}{key}: {value}" for key, value in rest.items())
        if result == event.reason and settled:
            result = "refused"
        elif result in REASONS:
            result = words(result)
        us = entry.get("us")
        found.append(Stage(STAGES.get(stage, stage), result, note, us if isinstance(us, int | float) else None, good))
    if found and event.outcome not in ("allowed", "changed") and not any(stage.good is False for stage in found):
        # It ended after the last stage that is told, which went well: in the next one, or while the answer was waited for.
        last = str(listed[-1].get("stage", "")) if isinstance(listed, list) else ""
        ended = _after(last, event.reason)
        found.append(
            Stage(STAGES[ended], "refused" if ended != "forward" else "failed", words(event.reason), None, False)
        )
    return found


def _after(stage: str, reason: str) -> str:
    names = [*STAGES]
    place = names.index(stage) + 1 if stage in names else 0
    if names[min(place, len(names) - 1)] == "intent" and reason != "audit_unavailable":
        return "forward"
    return names[min(place, len(names) - 1)]
