"""`serve --demo`: a careless MCP server behind the gateway, one API key per default role, and what to paste next.

The demonstration's keys are kept readable in SENTINEL_VAR/demo-keys (0600), as an agent's own configuration would keep
them, so that a later start can print them again; the database holds only their digests, as of every key. The admin's
password is printed once and kept nowhere.
"""

from __future__ import annotations

import json
import secrets
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from sentinel.conf import PROJECT, Config

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
    keys = _keys(config.var / "demo-keys")
    password = _administrator()
    return command(port), lambda address: text(address, keys, password)


def _upstream(url: str) -> None:
    from audit.acts import Actor
    from proxy import services
    from proxy.models import Upstream

    known = Upstream.objects.filter(slug=UPSTREAM).first()
    if known is None:
        services.add_upstream(UPSTREAM, url=url, actor=Actor.system())
    elif known.url != url:
        services.change_upstream(UPSTREAM, url=url, actor=Actor.system())


def _keys(place: Path) -> dict[str, str]:
    """Return a key per role: those kept, and new ones for roles whose key is gone or no longer valid."""
    from audit.acts import Actor
    from policies import services
    from policies.models import ApiKey, Role

    kept: dict[str, dict[str, str]] = json.loads(place.read_text()) if place.exists() else {}
    for role in ROLES:
        entry = kept.get(role)
        if entry and ApiKey.objects.filter(id=entry["id"], revoked_at=None).exists():
            continue
        kept.pop(role, None)
        if Role.objects.filter(name=role).exists():
            made = services.create_key(name=f"demo-{role}", role=role, actor=Actor.system())
            kept[role] = {"id": str(made.key.id), "key": made.secret}
    place.touch(mode=0o600)
    place.write_text(json.dumps(kept, indent=1))
    return {role: entry["key"] for role, entry in kept.items()}


def _administrator() -> str:
    """Make the first administrator, and return the password; nothing when there is one already."""
    from sentinel.models import User

    if User.objects.filter(is_superuser=True).exists():
        return ""
    password = secrets.token_urlsafe(15)
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
    lines += ["", "  API keys of the demonstration (kept in var/demo-keys):"]
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
