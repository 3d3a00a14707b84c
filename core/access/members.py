"""Which permission it takes to change each member of each object: one table, which every form, API and page that changes something reads.

Who may change one member of an object may not thereby undo what another duty decided of it: an operator says where an upstream
is and with what it is reached, and a policy manager what of it may be used. A member that is not here belongs to nobody, and
cannot be changed; `tests/admin/test_members.py` holds every form and every request of the API against the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["MEMBERS", "demanded", "owned", "register"]

JUDGE = "proxy.judge_upstream"
COMMAND = "proxy.start_command"


def _all(permission: str, members: str) -> dict[str, str]:
    return dict.fromkeys(members.split(), permission)


MEMBERS: dict[str, Mapping[str, str]] = {
    "upstream": {
        **_all(
            "proxy.change_upstream",
            "slug name description transport url headers ca_pem client_cert_pem client_key networks connect_timeout"
            " first_byte_timeout idle_timeout tool_timeouts max_concurrent max_answer_bytes refusals process_mode memory_limit_mb enabled",
        ),
        # What its tools may do, and what events keep of it, is policy: the operator's own changes are held against it.
        **_all(JUDGE, "catalogue_policy dispatchers audit_level"),
        **_all(COMMAND, "command environment working_directory"),
    },
    "catalogueitem": _all("proxy.approve_item", "hash reason item"),
    "apikey": {
        **_all(
            "policies.change_apikey",
            # `duty` is given by whoever holds all that the duty holds.
            "name role owner description expires_at expires holds duty networks upstreams query_allowed",
        ),
        **_all("policies.revoke_apikey", "overlap overlap_seconds reason"),
    },
    "role": _all("policies.change_role", "name description"),
    "rule": _all(
        "policies.change_rule",
        "roles any_role keys kinds pattern upstreams conditions window days from_time to_time time_zone valid_from valid_until"
        " networks subject path quantifier operator value",
    ),
    "ratelimit": _all("policies.change_ratelimit", "key role upstream kind pattern"),
    "policy": _all("policies.change_rule", "document"),
    "replay": _all("policies.replay_policy", "document since until"),
    "question": _all(
        "policies.explain_policy", "key role upstream kind tool name arguments annotations client_ip ip at"
    ),
    "redactionrule": _all("audit.change_redactionrule", "kind value label note enabled"),
    "payload": _all("audit.erase_payload", "reason"),
    "user": _all(
        "sentinel.change_user", "username first_name last_name email time_zone is_active duties password"
    ),
}  # fmt: skip


def register(kind: str, permission: str, members: Iterable[str]) -> None:
    """Let a permission decide more members of a kind of object, which an app has in a table of its own."""
    MEMBERS[kind] = {**MEMBERS[kind], **dict.fromkeys(members, permission)}


def owned(user: Any, kind: str) -> frozenset[str]:
    """Return the members of a kind of object that this person may change."""
    permissions = {permission: user.has_perm(permission) for permission in set(MEMBERS[kind].values())}
    return frozenset(member for member, permission in MEMBERS[kind].items() if permissions[permission])


def demanded(kind: str, given: Mapping[str, Any], present: Mapping[str, Any]) -> list[str]:
    """Return the permissions that it takes to make `present` what is given: of the members that change, and no others."""
    changed = [name for name, value in given.items() if name not in present or value != present[name]]
    return sorted({MEMBERS[kind][name] for name in changed})
