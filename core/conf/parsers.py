"""How the text of an environment variable becomes a value; each raises ValueError with words that fit one line."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from core.access.addresses import Network

_SIZE = re.compile(r"(\d+)\s*([kmgt]?)(i?b)?", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", re.IGNORECASE)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_HOST = re.compile(r"\*|\.?[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?|\[[0-9A-Fa-f:.]+\]")
_SCHEMED = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9_.:\[\]-]*")  # of an app's own scheme, such as tauri://localhost
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What the gateway itself, its libraries or the system read: never a credential that was meant for an upstream.
_OWN = re.compile(
    r"(SENTINEL|DJANGO|POSTGRES|OTEL|PYTHON|UVICORN|LD|LC|XDG)_.*|PYTHON[A-Z]+|PG[A-Z]+|DATABASE_URL|REDIS_URL|SSL_CERT_(FILE|DIR)|SSLKEYLOGFILE|"
    r".*_PROXY|PATH|HOME|LANG|TZ|USER|LOGNAME|SHELL|PWD|TMPDIR|HOSTNAME",
    re.IGNORECASE,
)


def text(raw: str) -> str:
    """Take the text as it is."""
    return raw


def path(raw: str) -> Path:
    """Read a folder's path, relative to where the process was started."""
    return Path(raw).expanduser().absolute()


def boolean(raw: str) -> bool:
    """Read yes or no."""
    value = raw.strip().lower()
    if value in ("1", "true", "yes", "on"):
        return True
    if value in ("0", "false", "no", "off"):
        return False
    raise ValueError("must be true or false")


def integer(least: int, most: int) -> Callable[[str], int]:
    """Read a whole number within bounds."""

    def parse(raw: str) -> int:
        if not re.fullmatch(r"\d{1,18}", raw.strip()) or not least <= int(raw) <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return int(raw)

    return parse


def size(least: int) -> Callable[[str], int]:
    """Read a number of bytes, such as 4194304, 4MiB or 4M (powers of 1024)."""

    def parse(raw: str) -> int:
        match = _SIZE.fullmatch(raw.strip())
        if not match or len(match[1]) > 15:
            raise ValueError("must be a number of bytes, such as 4194304 or 4MiB")
        value: int = int(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " ")
        if value < least:
            raise ValueError(f"must be at least {least} bytes")
        return value

    return parse


def seconds(least: float, most: float) -> Callable[[str], float]:
    """Read a duration, such as 300, 300s, 5m or 250ms."""

    def parse(raw: str) -> float:
        match = _DURATION.fullmatch(raw.strip())
        value = float(match[1]) * _SECONDS[(match[2] or "s").lower()] if match else -1.0
        if not least <= value <= most:
            raise ValueError(f"must be a duration from {least:g} to {most:g} seconds, such as 30, 30s or 5m")
        return value

    return parse


def choice(*allowed: str) -> Callable[[str], str]:

    def parse(raw: str) -> str:
        if raw.strip() not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return raw.strip()

    return parse


def words(raw: str) -> tuple[str, ...]:
    """Read a comma-separated list; empty items are left out."""
    return tuple(item for item in (part.strip() for part in raw.split(",")) if item)


def some_of(*allowed: str) -> Callable[[str], tuple[str, ...]]:
    """Read a comma-separated list of a few words."""

    def parse(raw: str) -> tuple[str, ...]:
        found = words(raw)
        if not set(found) <= set(allowed):
            raise ValueError(f"must be a list of some of {', '.join(allowed)}")
        return found

    return parse


def networks(raw: str) -> tuple[Network, ...]:
    """Read a comma-separated list of networks or addresses."""
    found = []
    for item in words(raw):
        try:
            found.append(ip_network(item))
        except ValueError:
            raise ValueError(f"must list networks such as 10.0.0.0/8 or ::1/128, and {item[:50]!r} is none") from None
    return tuple(found)


def hosts(raw: str) -> tuple[str, ...]:
    """Read a comma-separated list of host names without a port; `.example.com` also stands for what is below it."""
    for item in words(raw):
        if not _HOST.fullmatch(item):
            raise ValueError(f"must list host names without scheme or port, and {item[:50]!r} is none")
    return tuple(item.lower() for item in words(raw))


def origins(raw: str) -> tuple[str, ...]:
    """Read a list of origins as browsers name them: https://app.example.com, vscode-file://vscode-app, or null."""
    found: list[str] = []
    for item in words(raw.lower()):
        if item == "null":
            found.append(item)
        elif item.startswith(("http://", "https://")) and item.isascii() and "*" not in item:
            found.append(_bare_origin(item))
        elif not item.startswith("http") and _SCHEMED.fullmatch(item):
            found.append(item)
        else:
            raise ValueError(
                f"must list origins such as https://app.example.com, each by name, and {item[:50]!r} is none"
            )
    return tuple(found)


def variables(raw: str) -> dict[str, str]:
    """Read a list of environment variables, each with the only origin it may be sent to after an `@` (`stdio`: commands)."""
    found: dict[str, str] = {}
    for item in words(raw):
        name, bound, origin = item.partition("@")
        if not _VARIABLE.fullmatch(name):
            raise ValueError("must list names of environment variables, each with @ORIGIN if it is for one server only")
        if _OWN.fullmatch(name):
            raise ValueError(f"must not list {name}, which is no credential of an upstream")
        if name in found:
            raise ValueError(f"names {name} twice")
        if bound and origin != "stdio":
            try:
                found[name] = _bare_origin(origin)
            except ValueError:
                raise ValueError(
                    f"must name an origin such as https://crm.example.com, or stdio, after {name}@"
                ) from None
        else:
            found[name] = origin
    return found


def _bare_origin(text: str) -> str:
    """Read the origin of a web server and leave out the port that its scheme implies."""
    parts = urlsplit(text)
    named = parts.scheme in ("http", "https") and parts.hostname
    if not named or parts.path or parts.query or parts.fragment or parts.username is not None or parts.port == 0:
        raise ValueError(f"must list origins such as https://app.example.com, and {text[:50]!r} is none")
    implied = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host_of(text)}" + (f":{parts.port}" if parts.port not in (None, implied) else "")


def public_url(raw: str) -> str:
    """Read an absolute http(s) URL, without a slash at its end."""
    parts = urlsplit(raw.strip())
    try:
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fine = False
    if not fine or parts.query or parts.fragment or parts.username or parts.password:
        raise ValueError("must be an address such as https://mcp.example.com")
    return raw.strip().rstrip("/")


def database_url(raw: str) -> str:
    try:
        parts = urlsplit(raw.strip())
        fine = parts.scheme in ("postgresql", "postgres") and len(parts.path) > 1 and (parts.port or 1) > 0
    except ValueError:
        fine = False
    if not fine:
        raise ValueError(
            "must look like postgresql://user:password@host:5432/database (PostgreSQL is the only database)"
        )
    from psycopg import ProgrammingError
    from psycopg.conninfo import make_conninfo

    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        try:
            make_conninfo(**{name: "x"})
        except ProgrammingError:
            raise ValueError(f"has the option {name!r}, which libpq does not know") from None
        if name == "connect_timeout" and not value.isdigit():
            raise ValueError(f"has connect_timeout={value}, which is no number of seconds")
    return raw.strip()


def redis_url(raw: str) -> str:
    if urlsplit(raw.strip()).scheme not in ("redis", "rediss", "unix"):
        raise ValueError("must look like redis://host:6379/0")
    from redis.asyncio import ConnectionPool
    from redis.exceptions import RedisError

    try:  # a special character in the password that is not percent-encoded, an option that does not exist
        ConnectionPool.from_url(raw.strip()).make_connection()  # type: ignore[no-untyped-call]
        port = urlsplit(raw.strip()).port
    except (ValueError, TypeError, RedisError):
        raise ValueError(
            "must look like redis://user:password@host:6379/0, special characters percent-encoded"
        ) from None
    if port == 0:
        raise ValueError("must name a port from 1 to 65535")
    return raw.strip()


def key_bytes(raw: str) -> bytes:
    """Read at least 16 bytes written as hexadecimal digits."""
    try:
        value = bytes.fromhex(raw.strip())
    except ValueError:
        raise ValueError("must be hexadecimal digits (make one with `openssl rand -hex 32`)") from None
    if len(value) < 16:
        raise ValueError("must be at least 32 hexadecimal digits (make one with `openssl rand -hex 32`)")
    return value


def peppers(raw: str) -> dict[int, bytes]:
    """Read numbered keys, `1:hex,2:hex`; the highest number signs, all verify."""
    ring: dict[int, bytes] = {}
    for item in words(raw):
        number, colon, digits = item.partition(":")
        if not colon or not re.fullmatch(r"[1-9]\d{0,3}", number.strip()):
            raise ValueError("must be numbered keys such as 1:HEX or 1:HEX,2:HEX, with numbers from 1 to 9999")
        if int(number) in ring:
            raise ValueError(f"names the number {int(number)} twice")
        try:
            ring[int(number)] = bytes.fromhex(digits.strip())
        except ValueError:
            raise ValueError(f"number {int(number)} is not written in hexadecimal digits") from None
        if not ring[int(number)]:
            raise ValueError(f"number {int(number)} is empty")
    if not ring:
        raise ValueError("must hold at least one numbered key, such as 1:HEX")
    return ring


def host_of(url: str) -> str:
    """Return the host of an address as a Host header names it, without the port."""
    host = (urlsplit(url).hostname or "").lower()
    return f"[{host}]" if ":" in host else host


def origin_of(url: str) -> str:
    """Return the origin of an address, such as https://mcp.example.com:8443."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{host_of(url)}" + (f":{parts.port}" if parts.port else "")
