"""The policies application."""

from __future__ import annotations

from collections.abc import Sequence

from django.apps import AppConfig

from core.access import members
from policies.specs import LIMIT, RULE


class PoliciesConfig(AppConfig):
    """Registers the policies application, and whose the plain members of rules and limits are."""

    name = "policies"

    def ready(self) -> None:
        """Answer for keys and for what decisions are made of; whoever may change a rule or a limit may change any plain member of it."""
        from core import registry

        members.register("rule", "policies.change_rule", (row.name for row in RULE))
        members.register("ratelimit", "policies.change_ratelimit", (row.name for row in LIMIT))
        registry.keys_named.answered_by(keys_named)
        registry.key_page.answered_by(registry.page("admin:policies_apikey_change", "policies.view_apikey"))
        registry.new_key_page.answered_by(registry.page("admin:policies_apikey_add", "policies.add_apikey"))
        registry.explain_page.answered_by(registry.page("admin:policies_explain", "policies.explain_policy"))


def keys_named(names: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return all keys that have one of these names or prefixes: (id, name, prefix)."""
    from django.db.models import Q

    from policies.models import ApiKey

    public = [name.rpartition("_")[2] for name in names]
    keys = ApiKey.objects.filter(Q(name__in=names) | Q(public_id__in=public))
    found = [(str(key.pk), key.name, key.prefix) for key in keys.only("pk", "name", "public_id")]
    return [key for key in found if key[1] in names or key[2] in names]
