"""Who may do what in the admin and the API: five duties, one table.

A duty is a group. Pages ask for permissions, never for duties, so this table is all there is to read and to test. The
groups are made equal to it after each migration; a person may be given several.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Duty:
    """One duty: its name, what it is for, and the permissions that make it up."""

    name: str
    title: str
    sentence: str
    permissions: frozenset[str]


# Permissions beside Django's own four for each model: (app, model, codename, what it allows).
EXTRA = (
    ("sentinel", "user", "view_overview", "Can see the overview"),
    ("sentinel", "user", "view_health", "Can see the state of the installation"),
    ("audit", "auditevent", "view_payload", "Can look at arguments and results"),
    ("audit", "auditevent", "export_auditevent", "Can export events"),
    ("audit", "auditevent", "verify_auditevent", "Can verify the log"),
    ("audit", "auditevent", "erase_payload", "Can erase arguments and results"),
    ("policies", "apikey", "revoke_apikey", "Can rotate and revoke keys"),
    ("policies", "rule", "explain_policy", "Can ask why something is allowed or denied"),
    ("policies", "rule", "replay_policy", "Can replay a policy over past events"),
    ("proxy", "upstream", "check_upstream", "Can check an upstream's connection"),
    ("proxy", "upstream", "judge_upstream", "Can decide what of an upstream may be used, and what events keep of it"),
)


def _crud(app: str, *models: str, acts: Iterable[str] = ("view", "add", "change", "delete")) -> frozenset[str]:
    return frozenset(f"{app}.{act}_{model}" for model in models for act in acts)


_VIEWER = frozenset({"sentinel.view_overview", "audit.view_auditevent"})
_AUDITOR = _VIEWER | {
    "audit.view_payload",
    "audit.export_auditevent",
    "audit.verify_auditevent",
    "audit.view_redactionrule",
}
_POLICY_MANAGER = (
    _VIEWER
    | _crud("policies", "role", "rule", "ratelimit")
    | _crud("policies", "apikey", acts=("view", "add", "change"))
    | _crud("policies", "policyversion", acts=("view",))
    | {"policies.revoke_apikey", "policies.explain_policy", "policies.replay_policy"}
    | _crud("proxy", "upstream", "catalogueitem", acts=("view",))
    | {"proxy.approve_item", "proxy.judge_upstream"}
)
_OPERATOR = (
    _VIEWER
    | _crud("proxy", "upstream")
    | _crud("proxy", "catalogueitem", acts=("view",))
    | {"proxy.check_upstream", "sentinel.view_health"}
)
_ADMINISTRATOR = (
    _AUDITOR
    | _POLICY_MANAGER
    | _OPERATOR
    | _crud("sentinel", "user")
    | _crud("audit", "redactionrule")
    | _crud("auth", "group", acts=("view",))
    | {"proxy.start_command", "audit.erase_payload"}
)

DUTIES: dict[str, Duty] = {
    duty.name: duty
    for duty in (
        Duty("viewer", "Viewer", "Sees the overview and the events, without arguments and results.", _VIEWER),
        Duty("auditor", "Auditor", "Sees events with arguments and results, exports and verifies the log.", _AUDITOR),
        Duty(
            "policy-manager", "Policy manager", "Manages keys, roles, rules, limits and tool approval.", _POLICY_MANAGER
        ),
        Duty("operator", "Operator", "Manages upstreams and watches the installation's health.", _OPERATOR),
        Duty("administrator", "Administrator", "Does all of this, and manages the people.", _ADMINISTRATOR),
    )
}


def grantable(user: Any) -> list[str]:
    """Return the duties that `user` may give to others: nobody grants more than they hold."""
    if user.is_superuser:
        return list(DUTIES)
    held = user.get_all_permissions()
    return [name for name, duty in DUTIES.items() if duty.permissions <= held]


def sync_groups(**kwargs: Any) -> None:
    """Make the groups and their permissions equal to the table (runs after each migration)."""
    from django.apps import apps
    from django.contrib.auth.models import Group, Permission
    from django.contrib.contenttypes.models import ContentType

    sender = kwargs.get("app_config")
    last = [config.label for config in apps.get_app_configs() if config.models_module is not None][-1]
    if sender is not None and sender.label != last:
        return  # each application announces itself; after the last one every permission is there
    using = kwargs.get("using", "default")
    for app, model, codename, name in EXTRA:
        if not apps.is_installed(app) or not apps.all_models[app].get(model):
            continue
        content_type, _ = ContentType.objects.using(using).get_or_create(app_label=app, model=model)
        Permission.objects.using(using).update_or_create(
            content_type=content_type, codename=codename, defaults={"name": name}
        )
    known = {
        f"{app}.{codename}": pk
        for pk, app, codename in Permission.objects.using(using).values_list(
            "pk", "content_type__app_label", "codename"
        )
    }
    for duty in DUTIES.values():
        group, _ = Group.objects.using(using).get_or_create(name=duty.name)
        group.permissions.set([known[name] for name in duty.permissions if name in known])
