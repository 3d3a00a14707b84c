"""What filters and forms of the admin may be filled with: names that other packages keep, in one query."""

from __future__ import annotations

from django.db import connection

from audit.reasons import REASONS

SUGGESTIONS = """
(SELECT 'key', id::text, name FROM policies_apikey ORDER BY (revoked_at IS NULL) DESC, name LIMIT 500)
UNION ALL (SELECT 'role', name, name FROM policies_role ORDER BY name LIMIT 100)
UNION ALL (SELECT 'upstream', slug, slug FROM proxy_upstream ORDER BY slug LIMIT 100)
UNION ALL (SELECT 'tool', name, name FROM proxy_catalogueitem WHERE present AND kind = 'tool' GROUP BY name ORDER BY name LIMIT 500)
"""


def suggestions() -> dict[str, list[tuple[str, str]]]:
    """Return (value, label) by parameter."""
    with connection.cursor() as cursor:
        cursor.execute(SUGGESTIONS)
        rows = cursor.fetchall()
    found: dict[str, list[tuple[str, str]]] = {"key": [], "role": [], "upstream": [], "tool": []}
    for kind, value, label in rows:
        found[kind].append((value, label))
    return found | {"reason": [(word, word) for word in REASONS]}
