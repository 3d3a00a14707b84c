"""What kind an administrator's act is, by what its event has: a change, mere access, or refused.

Every event of the admin, the API and the commands has outcome `changed`, whatever became of it. Whoever reads the log wants to
find those that were refused, and to look past those that changed nothing: log-ins, looks, exports.
"""

from __future__ import annotations

from typing import Any

__all__ = ["ACCESS", "KINDS", "kind_of", "where"]

#: acts that change nothing that the gateway does
ACCESS = (
    "admin.login", "admin.logout", "admin.second_factor.given", "admin.payloads.viewed", "admin.events.exported",
    "admin.events.export.ended", "admin.events.export.fetched", "admin.log.verified", "admin.log.verification.asked",
    "admin.policy.replayed", "admin.backup.made",
)  # fmt: skip
#: value of the filter -> in words
KINDS = {
    "changed": "changes",
    "accessed": "log-ins, looks, exports",
    "refused": "refused",
    "none": "requests only",
    "quiet": "all but log-ins, looks, exports",
    "all": "all",
}
_ACCESSED = "outcome = 'changed' AND status_code < 400 AND method = ANY(%s)"
_WHERE = {
    "changed": "outcome = 'changed' AND status_code < 400 AND NOT method = ANY(%s)",
    "accessed": _ACCESSED,
    "refused": "outcome = 'changed' AND status_code >= 400",
    "none": "outcome <> 'changed'",
    "quiet": f"NOT ({_ACCESSED})",
    "all": "true",
}


def kind_of(outcome: str, method: str, status: int) -> str:
    """Return changed, accessed or refused; "" for an event that is no act."""
    if outcome != "changed":
        return ""
    return "refused" if status >= 400 else "accessed" if method in ACCESS else "changed"


def where(kind: str) -> tuple[str, list[Any]]:
    """Return a value of the filter as SQL with its values."""
    sql = _WHERE[kind]
    return f"({sql})", [list(ACCESS)] * sql.count("%s")
