"""Every reason that an event may have, one row each (pure): what is recorded, shown and told for it, and how.

Whatever words, answers or groups a reason reads it here: the proxy's refusals, policy's decisions, the admin's sentences.
To add one, write its row and use its code where it arises; a test finds codes that have no row and rows that nothing uses.

Two rules shape what callers are told:
- of a bad key never which way it was bad (`told_as`), while the event keeps the exact reason;
- JSON-RPC codes follow the MCP revision where it has one (-32700 ... -32022), else are the HTTP status, which stands outside
  the reserved range -32768..-32000.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

__all__ = ["REASONS", "Outcome", "Reason", "answering", "words"]

Outcome = Literal[
    "allowed", "denied", "limited", "invalid", "unauthenticated", "upstream_error", "cancelled", "interrupted",
    "changed", "unrecorded",
]  # fmt: skip


class Reason(NamedTuple):
    """One reason. Without a status it stands in events alone, and nobody is answered with it."""

    code: str
    #: of the event of what ends for this reason
    outcome: Outcome
    #: why, as the admin's sentences say it
    words: str
    #: what the caller is told: HTTP status, JSON-RPC code, and a sentence where nothing more exact is known
    status: int = 0
    rpc: int = 0
    message: str = ""
    #: seconds after which to try again, where nothing better is known
    retry: int | None = None
    #: the reason that the caller is told instead of this one
    told_as: str = ""
    #: what was sent is no well-formed request; others that could not be served were well-formed
    malformed: bool = False
    #: it is about one call, although its status is not of those that are (proxy.http.refusals.IN_BAND)
    in_band: bool = False


PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
HEADER_MISMATCH: Final = -32020
UNSUPPORTED_VERSION: Final = -32022

SOON: Final = 5  # seconds

_BAD_KEY: Final = "The API key is not valid here."


def _bad_key(code: str, words: str, outcome: Outcome = "unauthenticated") -> Reason:
    """A key that does not count: to its caller all of these are one."""
    return Reason(code, outcome, words, 401, 401, _BAD_KEY, told_as="invalid_credential")


def _malformed(code: str, words: str, message: str, rpc: int = INVALID_REQUEST) -> Reason:
    """What was sent is no well-formed request."""
    return Reason(code, "invalid", words, 400, rpc, message, malformed=True)


# fmt: off
_ROWS: Final[tuple[Reason, ...]] = (
    # whose key it is
    Reason("missing_credential", "unauthenticated", "no key was sent",
           401, 401, "No API key was presented. Send one in the Authorization header as a Bearer token."),
    _bad_key("invalid_credential", "the key is not known"),
    _bad_key("expired_key", "the key has expired"),
    _bad_key("revoked_key", "the key was revoked"),
    _bad_key("wrong_network", "the key may not be used from this address"),
    _bad_key("query_forbidden", "this key may not be sent in the address"),
    _bad_key("administrative_key", "an administrative key cannot call tools"),
    Reason("credential_misplaced", "invalid", "a credential stood in the address under a name that is not read",
           400, INVALID_REQUEST, "The address holds what looks like a credential; send the key as Authorization: Bearer KEY, or as api_key."),
    Reason("credential_ambiguous", "invalid", "more than one credential was sent",
           400, INVALID_REQUEST, "More than one credential was presented; send exactly one."),
    # what policy says
    Reason("allowed_by_rule", "allowed", "a rule allows it"),
    Reason("open_method", "allowed", "it is protocol traffic, open to every valid key"),
    # One sentence each, so that what is hidden and what does not exist read the same.
    Reason("no_rule", "denied", "no rule allows it", 403, 403, "No policy rule allows this request."),
    Reason("denied_by_rule", "denied", "a rule denies it", 403, 403, "A policy rule denies this request."),
    Reason("policy_error", "denied", "a rule could not be evaluated, and nothing else allows it",
           403, 403, "Policy could not be decided for these arguments, so the request is refused."),
    Reason("ambiguous_target", "denied", "its URI could be taken for another by a server",
           403, 403, "The URI is not in its normal form, so that servers could take it for another; send it in that form."),
    Reason("nested_call", "denied", "a tool that calls others was called through another",
           403, 403, "A tool that calls others cannot be called through another."),
    Reason("tool_definition_changed", "denied", "the tool's definition changed and is not approved",
           403, 403, "The tool's definition has changed and waits for approval."),
    Reason("policy_stale", "denied", "the policy could not be confirmed for too long",
           503, 503, "The policy could not be confirmed lately.", SOON),
    # what is full
    Reason("rate_limited", "limited", "a rate limit was reached", 429, 429, "The rate limit is used up."),
    Reason("too_much_traffic", "limited", "too many lists and other messages beside calls were sent",
           429, 429, "Too many lists and other messages beside calls."),
    Reason("too_many_streams", "limited", "too many streams are open", 429, 429, "Too many open streams.", SOON),
    Reason("too_much_waiting", "limited", "more of this key's data was waiting to be read than one key may have",
           429, 429, "Too much of this key's data waits in the gateway: read what is open first."),
    Reason("limiter_unavailable", "limited", "the limiter could not be reached",
           503, 503, "The rate limit could not be checked.", SOON),
    # what became of it upstream
    Reason("upstream_unreachable", "upstream_error", "the upstream could not be reached",
           502, 502, "The upstream cannot be reached."),
    Reason("upstream_timeout", "upstream_error", "the upstream did not answer in time",
           504, 504, "The upstream did not answer in time."),
    Reason("upstream_broken", "upstream_error", "the upstream's answer was broken",
           502, 502, "The upstream's answer is broken."),
    Reason("upstream_redirect", "upstream_error", "the upstream redirected, which is not followed",
           502, 502, "The upstream answered with a redirect; its configured address needs fixing."),
    Reason("upstream_too_large", "upstream_error", "the upstream's answer was too large",
           502, 502, "The upstream's answer is too large."),
    Reason("upstream_busy", "upstream_error", "the upstream has too many calls open, or could not be reached lately",
           503, 503, "The upstream is busy or resting after failures.", SOON),
    Reason("upstream_error", "upstream_error", "the upstream answered with an error", 502, 502, "The upstream failed."),
    Reason("egress_refused", "upstream_error", "the upstream's address lies outside the allowed networks",
           502, 502, "The upstream's address is not one the gateway may connect to."),
    Reason("upstream_refused", "upstream_error", "the upstream refused it"),
    # how it ended early
    Reason("client_gone", "cancelled", "the client went away"),
    Reason("cancelled", "cancelled", "the client cancelled it"),
    Reason("server_stopping", "interrupted", "the gateway was stopped before the answer",
           503, 503, "The gateway is being stopped.", SOON),
    _bad_key("revoked_during_stream", "the key was revoked before the answer, or while the stream was open", "cancelled"),
    Reason("denied_during_stream", "cancelled", "the policy was changed before the answer, or while the stream was open",
           403, 403, "The policy does not allow this any longer."),
    Reason("upstream_changed", "cancelled", "the upstream was changed or removed while the stream was open",
           503, 503, "The upstream was changed or removed.", SOON),
    # the audit log, and what it tells of itself
    Reason("audit_unavailable", "unrecorded", "the audit log could not record it",
           503, 503, "The audit log cannot record this now, so it was not done.", SOON),
    Reason("process_died", "interrupted", "the process ended before the answer"),
    Reason("journal_damaged", "unrecorded", "part of the journal on disk was damaged"),
    Reason("answered_late", "allowed", "its answer came after its event was stored"),
    Reason("answered_again", "allowed", "another answer than the one that its event has"),
    # what is asked for is not there
    Reason("unknown_upstream", "invalid", "there is no such upstream", 404, 404, "There is no such upstream."),
    Reason("unknown_session", "invalid", "the session is not known",
           404, 404, "There is no such session; initialize a new one."),
    Reason("id_in_use", "invalid", "its session still waits for another request with its id",
           400, INVALID_REQUEST, "A request with this id still waits for its answer in this session; use another id."),
    Reason("unknown_task", "invalid", "the task is not known, or another key's",
           404, INVALID_PARAMS, "There is no such task.", in_band=True),
    Reason("unknown_event", "invalid", "the event it wanted to go on from is not known",
           400, INVALID_REQUEST, "There is no such event to go on from; open the stream without Last-Event-ID."),
    # what was sent
    _malformed("not_json", "the body is not JSON", "The body is not JSON.", PARSE_ERROR),
    _malformed("not_utf8", "the body is not UTF-8", "The body is not UTF-8.", PARSE_ERROR),
    _malformed("byte_order_mark", "the body begins with a byte order mark", "The body begins with a byte order mark.", PARSE_ERROR),
    _malformed("batch", "batches are not accepted", "Batches are not accepted: send one message per request."),
    _malformed("duplicate_member", "a member appears twice", "An object in the message has the same member twice."),
    _malformed("reserved_member", "a member has a name that is reserved", "A member of the message is a variant of a reserved one."),
    _malformed("too_deep", "the body nests too deep", "The message nests too deep."),
    _malformed("invalid_request", "it is no request of the protocol", "The message is not a valid request."),
    _malformed("invalid_params", "its parameters are not what its method takes", "The message's params are not valid.", INVALID_PARAMS),
    _malformed("lone_surrogate", "a name or id has half a surrogate pair", "A name in the message has half a surrogate pair."),
    _malformed("header_mismatch", "headers and body disagree", "A header and the body disagree.", HEADER_MISMATCH),
    Reason("body_too_large", "invalid", "the body is too large", 413, INVALID_REQUEST, "The body is too large."),
    Reason("body_timeout", "invalid", "the body came too slowly", 408, INVALID_REQUEST, "The body did not arrive in time."),
    Reason("unsupported_media_type", "invalid", "the body is not declared as JSON",
           415, INVALID_REQUEST, "The body must be sent as application/json."),
    Reason("unsupported_encoding", "invalid", "the body is encoded in a way that is not read",
           415, INVALID_REQUEST, "The body must be sent without a content encoding."),
    Reason("unsupported_version", "invalid", "the protocol version is not supported",
           400, UNSUPPORTED_VERSION, "The protocol version is not supported."),
    Reason("era_mismatch", "invalid", "the upstream speaks other versions of the protocol",
           400, UNSUPPORTED_VERSION, "The upstream does not speak this protocol version."),
    Reason("method_not_found", "invalid", "there is no such method",
           404, METHOD_NOT_FOUND, "There is no such method in this protocol version."),
    Reason("method_not_allowed", "invalid", "the HTTP verb is not allowed", 405, 405, "This verb is not allowed here."),
    Reason("bad_host", "invalid", "it was sent to another host's name",
           400, INVALID_REQUEST, "The Host header does not name this gateway."),
    Reason("bad_origin", "invalid", "the page that sent it is not allowed to",
           403, 403, "Pages of this origin may not call the gateway; whoever runs it can allow the origin by name (SENTINEL_ALLOWED_ORIGINS)."),
    # a defect of our own: recorded and answered all the same
    Reason("internal_error", "interrupted", "the gateway itself failed", 500, 500, "The gateway failed."),
    # what the REST API refuses, and records as an act; core.api.problems says how it is answered
    Reason("agent_key", "changed", "an agent's key can never administer"),
    Reason("permission_denied", "changed", "a permission that this needs was lacking"),
    Reason("csrf_failed", "changed", "it came without the token that tells this site's pages from others"),
    Reason("second_factor_required", "changed", "a second factor is demanded, and was not given"),
    Reason("command_refused", "changed", "commands cannot be given over the API"),
)
# fmt: on

REASONS: Final[Mapping[str, Reason]] = {row.code: row for row in _ROWS}


def answering(code: str) -> Reason:
    """The row that a reason is answered with; one without a row, or that is no answer, is a defect of ours."""
    row = REASONS.get(code)
    return row if row is not None and row.status else REASONS["internal_error"]


def words(code: str) -> str:
    """Say why in words; a code that is no more, as an old event may have, with its own."""
    row = REASONS.get(code)
    return row.words if row is not None else code.replace("_", " ")
