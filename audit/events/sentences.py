"""An event told as a sentence, and its decision stage by stage (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Part", "Stage", "sentence", "stages"]

# Why, in words; what is not here is shown as its code.
REASONS = {
    "missing_credential": "no key was sent",
    "invalid_credential": "the key is not known",
    "expired_key": "the key has expired",
    "revoked_key": "the key was revoked",
    "wrong_network": "the key may not be used from this address",
    "query_forbidden": "this key may not be sent in the address",
    "administrative_key": "an administrative key cannot call tools",
    "credential_misplaced": "a credential stood in the address under a name that is not read",
    "credential_ambiguous": "more than one credential was sent",
    "no_rule": "no rule allows it",
    "denied_by_rule": "a rule denies it",
    "allowed_by_rule": "a rule allows it",
    "open_method": "it is protocol traffic, open to every valid key",
    "policy_error": "a rule could not be evaluated, and nothing else allows it",
    "ambiguous_target": "its URI could be taken for another by a server",
    "nested_call": "a tool that calls others was called through another",
    "policy_stale": "the policy could not be confirmed for too long",
    "tool_definition_changed": "the tool's definition changed and is not approved",
    "rate_limited": "a rate limit was reached",
    "too_much_traffic": "too many lists and other messages beside calls were sent",
    "too_many_streams": "too many streams are open",
    "limiter_unavailable": "the limiter could not be reached",
    "upstream_unreachable": "the upstream could not be reached",
    "upstream_timeout": "the upstream did not answer in time",
    "upstream_broken": "the upstream's answer was broken",
    "upstream_redirect": "the upstream redirected, which is not followed",
    "upstream_too_large": "the upstream's answer was too large",
    "upstream_busy": "the upstream has too many calls open, or could not be reached lately",
    "upstream_error": "the upstream answered with an error",
    "egress_refused": "the upstream's address lies outside the allowed networks",
    "upstream_refused": "the upstream refused it",
    "client_gone": "the client went away",
    "cancelled": "the client cancelled it",
    "server_stopping": "the gateway was stopped before the answer",
    "revoked_during_stream": "the key was revoked before the answer, or while the stream was open",
    "denied_during_stream": "the policy was changed before the answer, or while the stream was open",
    "upstream_changed": "the upstream was changed or removed while the stream was open",
    "too_much_waiting": "more of this key's data was waiting to be read than one key may have",
    "audit_unavailable": "the audit log could not record it",
    "process_died": "the process ended before the answer",
    "unknown_upstream": "there is no such upstream",
    "unknown_session": "the session is not known",
    "id_in_use": "its session still waits for another request with its id",
    "unknown_task": "the task is not known, or another key's",
    "unknown_event": "the event it wanted to go on from is not known",
    "answered_late": "its answer came after its event was stored",
    "answered_again": "another answer than the one that its event has",
    "body_too_large": "the body is too large",
    "not_json": "the body is not JSON",
    "batch": "batches are not accepted",
    "duplicate_member": "a member appears twice",
    "header_mismatch": "headers and body disagree",
    "not_utf8": "the body is not UTF-8",
    "byte_order_mark": "the body begins with a byte order mark",
    "reserved_member": "a member has a name that is reserved",
    "too_deep": "the body nests too deep",
    "invalid_request": "it is no request of the protocol",
    "invalid_params": "its parameters are not what its method takes",
    "lone_surrogate": "a name or id has half a surrogate pair",
    "method_not_found": "there is no such method",
    "unsupported_media_type": "the body is not declared as JSON",
    "unsupported_encoding": "the body is encoded in a way that is not read",
    "body_timeout": "the body came too slowly",
    "bad_host": "it was sent to another host's name",
    "bad_origin": "the page that sent it is not allowed to",
    "era_mismatch": "the upstream speaks other versions of the protocol",
    "internal_error": "the gateway itself failed",
    "unsupported_version": "the protocol version is not supported",
    "method_not_allowed": "the HTTP verb is not allowed",
}
# What is no well-formed request; others that could not be served were well-formed.
MALFORMED = frozenset(
    "not_json not_utf8 byte_order_mark batch duplicate_member reserved_member too_deep invalid_request invalid_params"
    " lone_surrogate header_mismatch".split()
)
# Results of a stage after which a request goes on.
WENT_ON = frozenset(("", "ok", "skipped", "allowed_by_rule", "open_method"))
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


def words(reason: str) -> str:
    """Say a reason's code in words."""
    return REASONS.get(reason, reason.replace("_", " "))


def sentence(event: Any) -> list[Part]:
    """Tell what happened in one sentence."""
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
        say(" sent a malformed request" if event.reason in MALFORMED else " sent a request that was refused")
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
        result = REASONS.get(result, result) if result != event.reason or not settled else "refused"
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
