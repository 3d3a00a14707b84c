"""`serve --demo`: a careless MCP server behind the gateway, one API key per default role, and what to paste next.

Each start prints the demonstration's keys again: they are kept in SENTINEL_VAR/demo-keys, sealed as upstreams' credentials are
(no other key is kept in any form that could be read back). The administrator's password is printed once and kept nowhere.
"""

from __future__ import annotations

import json
import secrets
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from core.conf.settings import PROJECT, Config

ROLES = ("admin", "user", "readonly")
UPSTREAM = "demo"
ADMIN = "admin"


def free_port(wanted: int) -> int:
    """Return the port that was used before when it is free, else any free one on loopback."""
    for port in (wanted, 0):
        try:
            with socket.create_server(("127.0.0.1", port)) as listening:
                found: int = listening.getsockname()[1]
                return found
        except OSError:
            continue
    raise OSError("no port is free")


def command(port: int) -> list[str]:
    """Return how the careless server is started."""
    return [sys.executable, str(PROJECT / "demo" / "server.py"), "--port", str(port)]


def prepare(config: Config) -> tuple[list[str], Callable[[str], str]]:
    """Make the demonstration's upstream, keys and administrator; return the server's command and the text to print."""
    place = config.var / "demo-port"
    port = free_port(int(place.read_text()) if place.exists() else 0)
    place.write_text(str(port))
    _upstream(f"http://127.0.0.1:{port}/mcp")
    keys = _keys(config.var / "demo-keys", config.data_key)
    password = _administrator()

    def shown(address: str) -> str:
        _await(port)
        return text(address, keys, password)

    return command(port), shown


def _await(port: int, patience: float = 10.0) -> None:
    """Wait until the careless server listens, so that what is printed next works at once."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)


def _upstream(url: str) -> None:
    from core.access.actors import Actor
    from proxy.models import Upstream
    from proxy.services import upstreams

    known = Upstream.objects.filter(slug=UPSTREAM).first()
    if known is None:
        upstreams.create_upstream(
            slug=UPSTREAM,
            name="The demonstration's careless server",
            url=url,
            actor=Actor.system(),
            may_judge=True,
        )
    elif known.url != url:
        upstreams.update_upstream(slug=UPSTREAM, url=url, actor=Actor.system(), may_judge=True)


def _keys(place: Path, data_key: bytes) -> dict[str, str]:
    """Return a key per role: those kept, and new ones for roles whose key is gone, revoked or no longer readable."""
    from core.access.actors import Actor
    from policies.models import ApiKey, Role
    from policies.services import keys as key_acts
    from proxy.upstreams import vault

    try:
        kept: dict[str, dict[str, str]] = json.loads(place.read_text())
    except (FileNotFoundError, ValueError):  # cut short: their keys are gone, and new ones are made
        kept = {}
    keys = {}
    for role in ROLES:
        entry = kept.pop(role, None)
        if entry and ApiKey.objects.filter(id=entry["id"], revoked_at=None).exists():
            try:
                keys[role] = vault.unseal(data_key, f"demo:{role}", entry["key"])
                kept[role] = entry
                continue
            except vault.VaultError:
                pass
        if Role.objects.filter(name=role).exists():
            made = key_acts.create_key(name=f"demo-{role}", role=role, actor=Actor.system())
            keys[role] = made.secret
            kept[role] = {"id": str(made.key.id), "key": vault.seal(data_key, f"demo:{role}", made.secret)}
    place.touch(mode=0o600)
    place.write_text(json.dumps(kept, indent=1))
    return keys


def _administrator() -> str:
    """Make the first administrator, and return the password; nothing when there is one already."""
    from django.db import transaction

    from sentinel.models import User
    from sentinel.users.events import recorded

    if User.objects.filter(is_superuser=True).exists():
        return ""
    password = secrets.token_urlsafe(15)
    with transaction.atomic(), recorded("admin.user.created"):
        User.objects.create_superuser(ADMIN, password=password)
    return password


def text(address: str, keys: dict[str, str], password: str) -> str:
    """Word what a person needs next."""
    lines = ["", f"  Admin      {address}/admin/"]
    if password:
        lines.append(f"  Log in as  {ADMIN}  with the one-time password  {password}")
    else:
        lines.append(
            f"  Log in as  {ADMIN}  (the password was shown at the first start; python manage.py changepassword {ADMIN})"
        )
    lines += ["", "  API keys of the demonstration, one per role:"]
    lines += [f"    {role:9}{key}" for role, key in keys.items()]
    if keys:
        key = keys.get("user") or next(iter(keys.values()))
        body = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": "public.echo", "arguments": {"text": "hello"}},
        }
        lines += [
            "",
            "  Try it:",
            f"    curl -s {address}/mcp/{UPSTREAM} -H 'Authorization: Bearer {key}' \\",
            "      -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream' \\",
            f"      -d '{json.dumps(body)}'",
        ]
    lines += ["", "  Stop with Ctrl-C.", ""]
    return "\n".join(lines)
