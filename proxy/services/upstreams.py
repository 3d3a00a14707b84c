"""What people do to upstreams, one function for each act; the admin, the API and the commands call the same ones.

Each act is one transaction with its own audit event. Values that are secret are sealed on the way in and never come out
again: not in a return value, not in the event, not in an error.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q

from audit.services.acts import record_act
from core.access.actors import Actor
from core.access.members import JUDGE, MEMBERS
from policies.engine.dispatchers import PATH
from policies.services.naming import what_names
from policies.services.policy import lock_policy
from proxy.models import SLUG_PATTERN, Upstream
from proxy.services.catalogue import apply_policy, forget_approvals
from proxy.services.errors import ServiceError, locked
from proxy.upstreams import vault
from proxy.upstreams.egress import BadUrl, Egress, parse_url
from proxy.upstreams.transports.base import EgressRefused, UpstreamError
from proxy.upstreams.transports.http.streamable_http import checked
from proxy.upstreams.transports.http.tls import BadCertificate, client_context

RESOLVE_SECONDS = 5.0
LONGEST_TIMEOUT = 86400
#: how many of the rules and keys that name an upstream a refusal lists
MOST_NAMED = 10
#: headers that the gateway itself sets
_OWN_HEADERS = frozenset(
    "host content-length transfer-encoding connection accept-encoding upgrade te trailer mcp-session-id".split()
)
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_PLAIN = (
    "name description transport url command working_directory process_mode memory_limit_mb ca_pem client_cert_pem networks "
    "connect_timeout first_byte_timeout idle_timeout tool_timeouts max_concurrent max_answer_bytes refusals audit_level "
    "catalogue_policy dispatchers enabled"
).split()
_SECRET_MAPS = {"headers": "header", "environment": "environment"}


def create_upstream(
    *, actor: Actor, slug: str, may_start_commands: bool = False, may_judge: bool = False, **fields: Any
) -> Upstream:
    """Add an upstream.

    `headers` and `environment` map names to `env:VAR` or literal values, which are sealed, as is `client_key`.
    Only callers whose user may have the gateway start commands pass `may_start_commands`; the API never does.
    Without `may_judge` (who acts may decide what of an upstream may be used) its tools wait for approval.
    """
    if not re.fullmatch(SLUG_PATTERN[1:-1], slug):
        raise ServiceError(
            "The name must be lower-case letters, digits and hyphens, begin with a letter or digit, and be at most 63 long.",
            "slug",
        )
    with transaction.atomic():
        if Upstream.objects.filter(slug=slug).exists():
            raise ServiceError(f"There is already an upstream {slug}.", "slug")
        upstream = beginning(may_judge)
        upstream.slug = slug
        _fill(upstream, fields, may_start_commands)
        upstream.save()
        record_act(method="admin.upstream.created", actor=actor, target=slug, after=describe(upstream))
    return upstream


def update_upstream(
    *, actor: Actor, slug: str, may_start_commands: bool = False, may_judge: bool = False, **changes: Any
) -> Upstream:
    """Change an upstream. In `headers` and `environment` the value `(stored, encrypted)` keeps what is stored.

    Without `may_judge` what is moved to another server begins there as a new upstream would: nothing of it is approved.
    """
    with transaction.atomic():
        upstream = locked(slug)
        before, server = describe(upstream), _server(upstream)
        _fill(upstream, changes, may_start_commands)
        moved = not may_judge and _server(upstream) != server
        if moved:
            upstream.catalogue_policy = "quarantine"
        upstream.save()
        if moved:
            forget_approvals(upstream)
        if "catalogue_policy" in changes:
            apply_policy(slug)
        after = describe(upstream)
        if before != after or any(name in changes for name in (*_SECRET_MAPS, "client_key")):
            record_act(method="admin.upstream.updated", actor=actor, target=slug, before=before, after=after)
    return upstream


def remove_upstream(*, actor: Actor, slug: str) -> None:
    """Remove an upstream and its catalogue; its events stay. One that rules or keys name stays until they do not, since
    they would hold for the next upstream of this name.
    """
    with transaction.atomic():
        upstream = locked(slug)
        lock_policy()
        if names := what_names(slug):
            more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
            raise ServiceError(
                f"{slug} is named by {', '.join(names[:MOST_NAMED])}{more}, which would hold for the next upstream of this name. "
                "Change or remove those first; until then it can be disabled.",
                "slug",
            )
        before = describe(upstream)
        upstream.delete()
        record_act(method="admin.upstream.removed", actor=actor, target=slug, before=before)


def beginning(may_judge: bool) -> Upstream:
    """Give an upstream as it begins: where who adds it may not judge it, its definitions wait for who may.

    Else an operator would lift the quarantine of a server by adding it a second time.
    """
    return Upstream() if may_judge else Upstream(catalogue_policy="quarantine")


def _server(upstream: Upstream) -> tuple[Any, ...]:
    """Say which server an upstream is: what was approved of one is not approved of another."""
    return (
        upstream.transport,
        upstream.url,
        upstream.command,
        upstream.working_directory,
        upstream.environment,
    )


def judged(upstream: Upstream) -> dict[str, Any]:
    """Give what was decided of an upstream beside where it is: what a removal would take away with it."""
    fresh = Upstream()
    names = [name for name, permission in MEMBERS["upstream"].items() if permission == JUDGE]
    found = {name: getattr(upstream, name) for name in names if getattr(upstream, name) != getattr(fresh, name)}
    if not upstream.catalogue.exists():
        # Nothing was ever listed, so nothing is withheld: an operator may take back what was a slip of their own.
        found.pop("catalogue_policy", None)
    if upstream.catalogue.filter(Q(held=True) | Q(status__in=("changed", "quarantined"))).exists():
        found["catalogue"] = "definitions that are withheld"
    return found


def describe(upstream: Upstream) -> dict[str, Any]:
    """Give an upstream's settings without its secrets, as events, lists and the API show them."""
    shown: dict[str, Any] = {"slug": upstream.slug, **{name: getattr(upstream, name) for name in _PLAIN}}
    for name in _SECRET_MAPS:
        shown[name] = {key: vault.shown(value) for key, value in getattr(upstream, name).items()}
    shown["client_key"] = vault.HIDDEN if upstream.client_key else ""
    return shown


def check_address(url: str, networks: Sequence[str] = ()) -> None:
    """Judge a URL's host as it resolves now; raises ServiceError. A host that does not resolve may come up later."""
    origin = parse_url(url)
    only = [ipaddress.ip_network(network) for network in networks]
    egress = Egress(settings.SENTINEL.upstream_networks, only=only)

    async def judge() -> None:
        async with asyncio.timeout(RESOLVE_SECONDS):
            await egress.addresses(origin)

    try:
        asyncio.run(judge())
    except EgressRefused as error:
        raise ServiceError(error.detail, "url") from None
    except (UpstreamError, TimeoutError):
        return


def _fill(upstream: Upstream, fields: Mapping[str, Any], may_start_commands: bool) -> None:
    unknown = set(fields) - set(_PLAIN) - set(_SECRET_MAPS) - {"client_key"}
    if unknown:
        raise ServiceError(f"There is no setting {sorted(unknown)[0]}.")
    command_before = (upstream.command, upstream.environment, upstream.working_directory) if upstream.pk else None
    reach_before = home_of(upstream).reach if upstream.pk else ""
    for name in _PLAIN:
        if name in fields:
            setattr(upstream, name, fields[name])
    if upstream.transport == "stdio":
        upstream.url = "" if "url" not in fields else upstream.url
    # a command that is changed without the permission is refused as such, below
    if reach_before and (may_start_commands or upstream.transport != "stdio"):
        _check_move(upstream, reach_before, fields)
    for name, place in _SECRET_MAPS.items():
        if name in fields:
            setattr(upstream, name, _sealed(upstream, name, place, fields[name]))
    if "client_key" in fields:
        _set_client_key(upstream, str(fields["client_key"] or ""))
    _check_networks(upstream)
    _check_dispatchers(upstream)
    _check_tool_timeouts(upstream)
    if upstream.transport == "stdio":
        if not may_start_commands and command_before != (
            upstream.command,
            upstream.environment,
            upstream.working_directory,
        ):
            raise ServiceError(
                "Commands can be given only from the command line, or in the admin with the permission for it.",
                "command",
            )
        _check_command(upstream)
    else:
        _check_url(upstream)
    try:
        upstream.full_clean()
    except ValidationError as error:
        field, messages = next(iter(error.message_dict.items()))
        raise ServiceError(" ".join(messages), "" if field == "__all__" else field) from None


def home_of(upstream: Upstream) -> vault.Home:
    """Say whose secrets an upstream's are: its slug's, for where it is reached."""
    return vault.Home(
        upstream.slug,
        vault.reach_of(
            transport=upstream.transport,
            url=upstream.url,
            command=upstream.command,
            directory=upstream.working_directory,
        ),
    )


def _check_move(upstream: Upstream, before: str, fields: Mapping[str, Any]) -> None:
    """Refuse to take stored secrets along to another server: who chooses the address would read them there."""
    after = home_of(upstream).reach
    if after in (before, ""):  # an address that cannot be read is refused as such
        return
    what = "another command or folder" if "stdio:" in before + after else "another scheme, host or port"
    for name in (*_SECRET_MAPS, "client_key"):
        stored = getattr(upstream, name)
        held: dict[str, str] = stored if isinstance(stored, dict) else {"The client key": stored} if stored else {}
        given = fields.get(name, vault.HIDDEN)
        kept = {
            key: value
            for key, value in held.items()
            if (given.get(key) if isinstance(given, Mapping) else given) in (vault.HIDDEN, value)
        }
        sealed = sorted(key for key, value in kept.items() if vault.is_sealed(value))
        if sealed:
            raise ServiceError(
                f"{', '.join(sealed)}: stored for {_told(before)}; for {what} enter it again, or leave it out.", name
            )
        for value in kept.values():
            if refusal := _variables().refusal(value.removeprefix("env:"), after):
                raise ServiceError(refusal, name)


def _told(reach: str) -> str:
    return "the command it had" if reach.startswith("stdio:") else reach


def _variables() -> vault.Variables:
    return vault.Variables(settings.SENTINEL.upstream_env)


def _sealed(upstream: Upstream, name: str, place: str, entered: Mapping[str, str]) -> dict[str, str]:
    stored: dict[str, str] = getattr(upstream, name)
    result: dict[str, str] = {}
    for key, value in entered.items():
        _check_pair(name, key, value)
        spelt = key.lower() if name == "headers" else key
        if value == vault.HIDDEN:
            if key not in stored:
                raise ServiceError(f"There is no stored value for {key}.", name)
            result[key] = stored[key]
            continue
        if key in stored and value == stored[key] and vault.is_sealed(value):
            result[key] = value
            continue
        try:
            result[key] = vault.store(
                settings.SENTINEL.data_key, home_of(upstream), f"{place}:{spelt}", value, _variables()
            )
        except vault.VaultError as error:
            raise ServiceError(str(error), name) from None
    if name == "headers" and len({key.lower() for key in result}) != len(result):
        raise ServiceError("A header is given twice.", name)
    return result


def _check_pair(name: str, key: str, value: str) -> None:
    if not isinstance(key, str) or not isinstance(value, str):
        raise ServiceError("Names and values must be text.", name)
    if name == "environment":
        if not _ENVIRONMENT_NAME.match(key) or "\0" in value:
            raise ServiceError(f"{_name_in(key)!r} is not the name of an environment variable.", name)
        return
    if key.lower() in _OWN_HEADERS:
        raise ServiceError(f"The header {key} is set by the gateway itself.", name)
    try:
        checked(key.encode("ascii"), value.encode("latin-1"))
    except ValueError:
        raise ServiceError(
            f"The header {_name_in(key)!r} has a name or value that HTTP does not allow.", name
        ) from None


def _name_in(key: str) -> str:
    """Give what of an entered name may be shown: a value that slipped into it is a secret."""
    return re.split(r"[^A-Za-z0-9_.-]", key, maxsplit=1)[0][:60]


def _set_client_key(upstream: Upstream, value: str) -> None:
    if value == vault.HIDDEN:
        return
    upstream.client_key = ""
    if value:
        try:
            upstream.client_key = vault.store(
                settings.SENTINEL.data_key, home_of(upstream), "client-key", value, _variables()
            )
        except vault.VaultError as error:
            raise ServiceError(str(error), "client_key") from None


def _check_networks(upstream: Upstream) -> None:
    if not isinstance(upstream.networks, list):
        raise ServiceError("Networks are a list, such as 10.1.0.0/16.", "networks")
    for network in upstream.networks:
        try:
            ipaddress.ip_network(network)
        except (ValueError, TypeError):
            raise ServiceError(f"{str(network)[:60]!r} is not a network, such as 10.1.0.0/16.", "networks") from None


def _check_dispatchers(upstream: Upstream) -> None:
    if not isinstance(upstream.dispatchers, dict) or len(upstream.dispatchers) > 100:
        raise ServiceError(
            "Dispatchers name tools, at most 100, and for each the argument that names another.", "dispatchers"
        )
    for tool, path in upstream.dispatchers.items():
        if not tool or len(tool) > 512 or not isinstance(path, str) or not PATH.match(path):
            raise ServiceError(
                f"{str(tool)[:60]}: the argument is given as its name, or as a path such as calls.*.tool.",
                "dispatchers",
            )


def _check_tool_timeouts(upstream: Upstream) -> None:
    given = upstream.tool_timeouts
    if not isinstance(given, dict) or len(given) > 100:
        raise ServiceError(
            "Time-outs of tools name tools or patterns, at most 100, and for each its seconds.", "tool_timeouts"
        )
    for pattern, seconds in given.items():
        fits = isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds <= LONGEST_TIMEOUT
        if not pattern or len(pattern) > 512 or not fits:
            raise ServiceError(
                f"{str(pattern)[:60]!r}: the longest silence of a tool is given in seconds, more than 0 and at most {LONGEST_TIMEOUT}.",
                "tool_timeouts",
            )


def _check_command(upstream: Upstream) -> None:
    if upstream.url:
        raise ServiceError("A stdio upstream has a command and no URL.", "url")
    if upstream.headers:
        raise ServiceError("A stdio upstream has no headers; give it environment variables.", "headers")
    if "\0" in upstream.command or "\n" in upstream.command:
        raise ServiceError("The command has a line break or NUL in it.", "command")
    try:
        argv = shlex.split(upstream.command)
    except ValueError as error:
        raise ServiceError(f"The command cannot be split into arguments: {error}.", "command") from None
    if not argv:
        raise ServiceError("The command is empty.", "command")


def _check_url(upstream: Upstream) -> None:
    if upstream.command:
        raise ServiceError("An upstream with a URL has no command.", "command")
    try:
        origin = parse_url(upstream.url)
    except BadUrl as error:
        raise ServiceError(str(error), "url") from None
    check_address(upstream.url, upstream.networks)
    if upstream.ca_pem or upstream.client_cert_pem:
        if not origin.secure:
            raise ServiceError("Certificates are of use with an https URL only.", "url")
        key = ""
        if upstream.client_key:
            try:
                key = vault.reveal(
                    settings.SENTINEL.data_key, home_of(upstream), "client-key", upstream.client_key, _variables()
                )
            except vault.VaultError as error:
                raise ServiceError(str(error), "client_key") from None
        try:
            client_context(upstream.ca_pem, upstream.client_cert_pem, key)
        except BadCertificate as error:
            raise ServiceError(str(error), "client_cert_pem" if "client" in str(error) else "ca_pem") from None
