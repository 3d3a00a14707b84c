"""The settings of an installation, read from the environment once.

Every setting is one field of `Config`: its variable, its parser, its default and its help stand in one place, and
docs/settings.md is written from them (`python -m core.conf.settings > docs/settings.md`).
"""

from __future__ import annotations

import dataclasses
import fcntl
import ipaddress
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.access.addresses import Network
from core.access.duties import DUTIES
from core.conf import parsers, secrets

PROJECT = Path(__file__).resolve().parents[2]
# How the holder of a state folder says in its lock that it is a demonstration.
DEMO_MARK = ", demo"


class ConfigError(Exception):
    """A setting that cannot be used; the text is one line that names the variable."""


def setting(
    variable: str, parse: Callable[[str], Any], default: Any, help: str, *, shown: str = "", secret: bool = False
) -> Any:
    """Declare one setting; `shown` is how its default reads in the table, `secret` keeps its value out of messages."""
    extra = {"variable": variable, "parse": parse, "help": help, "shown": shown, "secret": secret}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=extra)
    return field(default=default, metadata=extra)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Every setting, typed; see docs/settings.md for what each means."""

    var: Path = setting(
        "SENTINEL_VAR", parsers.path, PROJECT / "var",
        "Folder of all state: journal, embedded database, generated secrets. Of one instance alone, on a disk that is kept.",
        shown="`var/` of the project",
    )  # fmt: skip
    database_url: str = setting(
        "DATABASE_URL", parsers.database_url, "",
        "PostgreSQL (15 or newer) to use, as the serving role. Without it an embedded server is started. Setting it makes the installation *production*.",
        secret=True,
    )  # fmt: skip
    owner_database_url: str = setting(
        "SENTINEL_OWNER_DATABASE_URL", parsers.database_url, "",
        "The same database as its owning role, which migrates and minds partitions, so that the serving role can be given fewer rights.",
        shown="`DATABASE_URL`", secret=True,
    )  # fmt: skip
    redis_url: str = setting(
        "REDIS_URL",
        parsers.redis_url,
        "",
        "Redis that counts rate limits across machines. Without it they hold per machine.",
        secret=True,
    )
    secret_key: str = setting(
        "SENTINEL_SECRET_KEY", parsers.text, "",
        "Signs log-in sessions, and the keys below that are not given are derived from it. At least 32 random characters (`openssl rand -hex 32`). Required in production.",
        shown="made once, kept in `SENTINEL_VAR`", secret=True,
    )  # fmt: skip
    key_peppers: dict[int, bytes] = setting(
        "SENTINEL_KEY_PEPPERS", parsers.peppers, {},
        "Numbered keys under which API keys are stored, `1:HEX,2:HEX`, each at least 32 digits. The highest number signs new ones, all verify. Required in production; losing one loses the API keys made under it.",
        shown="made once, kept in `SENTINEL_VAR`", secret=True,
    )  # fmt: skip
    redaction_key: bytes = setting(
        "SENTINEL_REDACTION_KEY", parsers.key_bytes, b"",
        "Key of the fingerprints that stand in place of redacted values and of digests. A new one makes old fingerprints incomparable.",
        shown="derived from `SENTINEL_SECRET_KEY`", secret=True,
    )  # fmt: skip
    data_key: bytes = setting(
        "SENTINEL_DATA_KEY", parsers.key_bytes, b"",
        "Encrypts upstream credentials and the seeds of second factors in the database. Give it before you replace `SENTINEL_SECRET_KEY`, or they become unreadable.",
        shown="derived from `SENTINEL_SECRET_KEY`", secret=True,
    )  # fmt: skip
    host: str = setting(
        "SENTINEL_HOST", parsers.text, "127.0.0.1",
        "Address `serve` listens on (its `--host`). One beyond loopback makes the installation *production*.",
    )  # fmt: skip
    port: int = setting(
        "SENTINEL_PORT", parsers.integer(0, 65535), 8000, "Port `serve` listens on (its `--port`); 0 takes a free one."
    )
    workers: int = setting(
        "SENTINEL_WORKERS",
        parsers.integer(1, 64),
        0,
        "Worker processes of `serve` (its `--workers`).",
        shown="one per core, 2 at least, 8 at most",
    )
    public_url: str = setting(
        "SENTINEL_PUBLIC_URL", parsers.public_url, "",
        "Address under which people and agents reach the gateway. `https` here means Secure cookies, HSTS and a trusted origin; every absolute address is made from it.",
        shown="the address of `serve`",
    )  # fmt: skip
    allowed_hosts: tuple[str, ...] = setting(
        "SENTINEL_ALLOWED_HOSTS", parsers.hosts, ("localhost", "127.0.0.1", "[::1]"),
        "Values of the `Host` header that are answered, any port; the host of `SENTINEL_PUBLIC_URL` is always among them.",
    )  # fmt: skip
    allowed_origins: tuple[str, ...] = setting(
        "SENTINEL_ALLOWED_ORIGINS", parsers.origins, (),
        "Origins whose pages may call the gateway from a browser, each by name, such as `https://app.example.com,vscode-file://vscode-app`; `null` is one too. None but the gateway's own otherwise.",
    )  # fmt: skip
    trusted_proxies: tuple[Network, ...] = setting(
        "SENTINEL_TRUSTED_PROXIES", parsers.networks, (),
        "Networks of reverse proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.",
    )  # fmt: skip
    metrics_token: str = setting(
        "SENTINEL_METRICS_TOKEN",
        parsers.text,
        "",
        "Bearer token that `/metrics` asks for. Without one it answers loopback only.",
        secret=True,
    )
    otel_endpoint: str = setting(
        "SENTINEL_OTEL_ENDPOINT", parsers.public_url, "",
        "Address of an OpenTelemetry collector that takes OTLP over HTTP, such as `http://127.0.0.1:4318`: each call is told to it as a span. Needs `make install-otel`; the SDK's own `OTEL_…` variables say the rest (service name, sampler, headers).",
    )  # fmt: skip
    audit_mode: str = setting(
        "SENTINEL_AUDIT_MODE", parsers.choice("strict", "best-effort"), "strict",
        "`strict`: what cannot be recorded is refused (503). `best-effort`: it is served, counted, and the gap recorded.",
    )  # fmt: skip
    audit_fsync: bool = setting(
        "SENTINEL_AUDIT_FSYNC", parsers.boolean, True,
        "Whether a record must be on the disk, not only with the operating system, before it counts. Off, a power cut may lose records.",
        shown="true",
    )  # fmt: skip
    audit_retention_days: int = setting(
        "SENTINEL_AUDIT_RETENTION_DAYS", parsers.integer(1, 36500), 90, "Days after which events are dropped."
    )
    key_max_days: int = setting(
        "SENTINEL_KEY_MAX_DAYS",
        parsers.integer(0, 36500),
        0,
        "Longest life of an agent's key in days; 0: a key need not expire.",
    )
    audit_disk_budget: int = setting(
        "SENTINEL_AUDIT_DISK_BUDGET",
        parsers.size(64 * 1024**2),
        4 * 1024**3,
        "Disk the journal may take while the database is away.",
        shown="4GiB",
    )
    upstream_networks: tuple[Network, ...] = setting(
        "SENTINEL_UPSTREAM_NETWORKS", parsers.networks, (),
        "Private networks in which upstreams may live, such as `127.0.0.0/8`. None by default (loopback with `serve --demo`), so that no upstream's address can point inwards.",
    )  # fmt: skip
    upstream_env: dict[str, str] = setting(
        "SENTINEL_UPSTREAM_ENV", parsers.variables, {},
        "Environment variables that headers and commands of upstreams may take their values from (`env:NAME`), such as `CRM_TOKEN,GIT_TOKEN@https://git.example.com,MAIL_TOKEN@stdio`. Without `@`, whoever configures upstreams decides where the value is sent; with it, it goes to that origin (`stdio`: to commands) and nowhere else. Variables named `MCP_UPSTREAM_…` need no listing. What the gateway itself reads cannot be listed.",
        secret=True,  # a value may have slipped in beside a name
    )  # fmt: skip
    max_body_bytes: int = setting(
        "SENTINEL_MAX_BODY_BYTES", parsers.size(1024), 4 * 1024**2, "Largest request body (413 above).", shown="4MiB"
    )
    max_answer_bytes: int = setting(
        "SENTINEL_MAX_ANSWER_BYTES", parsers.size(1024), 64 * 1024**2,
        "Largest answer that is not a stream, and largest event within a stream.", shown="64MiB",
    )  # fmt: skip
    buffer_bytes: int = setting(
        "SENTINEL_BUFFER_BYTES", parsers.size(1024**2), 256 * 1024**2,
        "Bodies, answers and events that may wait in one worker for a slow peer, in all. What would go beyond is ended, and nothing else.", shown="256MiB",
    )  # fmt: skip
    buffer_bytes_per_key: int = setting(
        "SENTINEL_BUFFER_BYTES_PER_KEY", parsers.size(1024**2), 64 * 1024**2,
        "The same for one API key in one worker. At least `SENTINEL_MAX_ANSWER_BYTES`, and never more than is left over for other keys.", shown="64MiB",
    )  # fmt: skip
    refusals: str = setting(
        "SENTINEL_REFUSALS", parsers.choice("auto", "http", "in-band", "tool-result"), "auto",
        "How refusals and failures of a call (403, 429, 5xx) are told: with their HTTP status (`http`); with HTTP 200 as a JSON-RPC error (`in-band`) or, for a tool, as its result with `isError` (`tool-result`); or (`auto`) like `tool-result` within a live legacy session, like `http` elsewhere. Each upstream may say otherwise.",
    )  # fmt: skip
    query_keys: bool = setting(
        "SENTINEL_QUERY_KEYS", parsers.boolean, True, "Whether `?api_key=` is accepted at all.", shown="true"
    )
    snapshot_max_age: float = setting(
        "SENTINEL_SNAPSHOT_MAX_AGE", parsers.seconds(1, 86400), 300.0,
        "How long calls are still served when keys and policies can no longer be confirmed with the database; then 503.", shown="300s",
    )  # fmt: skip
    connect_timeout: float = setting(
        "SENTINEL_CONNECT_TIMEOUT", parsers.seconds(0.1, 300), 5.0, "Time to connect to an upstream.", shown="5s"
    )
    first_byte_timeout: float = setting(
        "SENTINEL_FIRST_BYTE_TIMEOUT",
        parsers.seconds(0.1, 86400),
        0.0,
        "Longest silence of an upstream before it begins its answer. An upstream's or a tool's own longest silence goes before it.",
        shown="300s, or `SENTINEL_IDLE_TIMEOUT` where that is longer",
    )
    idle_timeout: float = setting(
        "SENTINEL_IDLE_TIMEOUT",
        parsers.seconds(1, 86400),
        300.0,
        "Longest silence of an upstream within an answer; whatever comes of it, progress and keep-alive comments included, begins it anew. Each upstream and each tool may have its own.",
        shown="300s",
    )
    resume_wait: float = setting(
        "SENTINEL_RESUME_WAIT", parsers.seconds(1, 86400), 300.0,
        "How long the event of a call stays open whose stream ended without the answer, when its client may come back for that (`Last-Event-ID`).", shown="300s",
    )  # fmt: skip
    catalogue_refresh: float = setting(
        "SENTINEL_CATALOGUE_REFRESH", parsers.seconds(0, 86400), 300.0,
        "How often `serve` reads the tools, prompts and resources of upstreams again. It begins when a client's list has passed (or with `upstreams check`; at once where definitions need approval). 0: only when asked, and when a list that passes differs from what is known.",
        shown="300s",
    )  # fmt: skip
    keepalive_interval: float = setting(
        "SENTINEL_KEEPALIVE_INTERVAL",
        parsers.seconds(0, 3600),
        15.0,
        "Silence after which a stream to a client gets a comment; 0 sends none.",
        shown="15s",
    )
    header_timeout: float = setting(
        "SENTINEL_HEADER_TIMEOUT",
        parsers.seconds(0.1, 300),
        10.0,
        "Time a client has to send a request's head (`serve` only).",
        shown="10s",
    )
    body_timeout: float = setting(
        "SENTINEL_BODY_TIMEOUT",
        parsers.seconds(0.1, 3600),
        30.0,
        "Time a client has to send a request's body.",
        shown="30s",
    )
    graceful_timeout: float = setting(
        "SENTINEL_GRACEFUL_TIMEOUT",
        parsers.seconds(0, 600),
        10.0,
        "Time calls in flight have to finish when `serve` is stopped.",
        shown="10s",
    )
    stop_delay: float | None = setting(
        "SENTINEL_STOP_DELAY",
        parsers.seconds(0, 300),
        None,
        "Time in which an instance that is told to stop still takes calls, while `/readyz` answers 503 and connections are "
        "closed behind each answer, so that a proxy leaves it without losing one.",
        shown="2s in production, else 0s",
    )
    max_streams: int = setting(
        "SENTINEL_MAX_STREAMS", parsers.integer(1, 1_000_000), 4000, "Open streams of one worker."
    )
    max_streams_per_key: int = setting(
        "SENTINEL_MAX_STREAMS_PER_KEY", parsers.integer(1, 1_000_000), 200, "Open streams of one API key in one worker."
    )
    max_connections: int = setting(
        "SENTINEL_MAX_CONNECTIONS", parsers.integer(64, 1_000_000), 10_000,
        "Open connections of clients to one worker (`serve` only); no more than half of the files it may have open.",
    )  # fmt: skip
    max_connections_per_source: int = setting(
        "SENTINEL_MAX_CONNECTIONS_PER_SOURCE", parsers.integer(1, 1_000_000), 1_000,
        "Open connections of one address (of IPv6: one /64) to one worker, never more than are left over for others; then its oldest idle one gives way. Trusted proxies are exempt.",
    )  # fmt: skip
    session_traffic_limit: int = setting(
        "SENTINEL_SESSION_TRAFFIC_LIMIT", parsers.integer(1, 10_000_000), 60_000,
        "What one API key may send in any minute to one worker beside its calls, which rate limits count: lists, pings, `initialize`, subscriptions, tasks, streams. Beyond it they get 429; notifications, answers to the server and the end of a session never do.",
    )  # fmt: skip
    limiter_fail: str = setting(
        "SENTINEL_LIMITER_FAIL", parsers.choice("closed", "local"), "closed",
        "When Redis does not answer: refuse (503), or count on this machine alone.",
    )  # fmt: skip
    limiter_timeout: float = setting(
        "SENTINEL_LIMITER_TIMEOUT", parsers.seconds(0.001, 1), 0.005,
        "Longest silence of Redis that a call waits out. More lets a slower network pass, and costs calls so much when Redis hangs.", shown="5ms",
    )  # fmt: skip
    api_rate: int = setting(
        "SENTINEL_API_RATE",
        parsers.integer(1, 10_000_000),
        6000,
        "Requests that one administrative key, or one person, may make to the REST API in any minute, per machine.",
    )
    second_factor_groups: tuple[str, ...] = setting(
        "SENTINEL_SECOND_FACTOR_GROUPS",
        parsers.some_of(*DUTIES),
        (),
        f"Duties whose bearers must give a second factor in the admin: {', '.join(DUTIES)}.",
    )
    log_level: str = setting(
        "SENTINEL_LOG_LEVEL",
        parsers.choice("DEBUG", "INFO", "WARNING", "ERROR"),
        "INFO",
        "Least level of what is logged.",
    )
    demo: bool = setting(
        "SENTINEL_DEMO",
        parsers.boolean,
        False,
        "Set by `serve --demo`: a demo upstream, and upstreams on loopback.",
        shown="false",
    )

    # Not settings of their own: found out or made from the above.
    instance: str = ""
    production: bool = False
    dsn: str = ""
    owner_dsn: str = ""
    generated: frozenset[str] = frozenset()

    @property
    def stop_seconds(self) -> float:
        """How long an instance that is told to stop still takes calls."""
        return (2.0 if self.production else 0.0) if self.stop_delay is None else self.stop_delay


SETTINGS = tuple(item for item in dataclasses.fields(Config) if "variable" in item.metadata)
SECRETS = tuple(item.metadata["variable"] for item in SETTINGS if item.metadata["secret"])


def load(environ: Mapping[str, str] = os.environ) -> Config:
    """Read and check the environment, make what is missing; raise ConfigError with one line for what cannot be used."""
    values: dict[str, Any] = {}
    for item in SETTINGS:
        raw = environ.get(item.metadata["variable"], "").strip()
        if raw:
            values[item.name] = _read(item, raw)
    var = values.setdefault("var", PROJECT / "var")
    _prepare(var)
    # As it is found now: a link above it that somebody changes later leads no process, and no command's cover, elsewhere.
    values["var"] = var = var.resolve()
    folder = var / "secrets"
    generated = {name for name in ("secret_key", "key_peppers") if name not in values}
    try:
        if "secret_key" in generated:
            values["secret_key"] = secrets.kept(folder, "secret-key")
        if "key_peppers" in generated:
            values["key_peppers"] = {1: bytes.fromhex(secrets.kept(folder, "key-pepper-1"))}
        values["instance"] = secrets.kept(folder, "instance", 4)
    except secrets.UnusableSecret as error:
        raise ConfigError(f"SENTINEL_VAR: {error}.") from None
    for name in ("redaction_key", "data_key"):
        if name not in values:
            values[name] = secrets.derived(values["secret_key"], name)
            generated.add(name)
    if "upstream_networks" not in values and (values.get("demo") or demo_runs(var)):
        values["upstream_networks"] = parsers.networks("127.0.0.0/8,::1/128")
    if "public_url" in values:
        host = parsers.host_of(values["public_url"])
        known = values.get("allowed_hosts", Config.__dataclass_fields__["allowed_hosts"].default)
        values["allowed_hosts"] = tuple(dict.fromkeys((*known, host)))
    values["production"] = bool(values.get("database_url")) or not loopback(values.get("host", "127.0.0.1"))
    return Config(**values, generated=frozenset(generated))


def demo_runs(var: Path) -> bool:
    """Tell whether a `serve --demo` holds a state folder: commands beside it may reach the upstreams that it may reach."""
    try:
        with (var / "serve.lock").open() as lock:
            if lock.read().rstrip().endswith(DEMO_MARK):
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def unfit_for_production(config: Config) -> str:
    """Say in one line which secret is missing or weak where one must be given, or nothing."""
    if not config.production:
        return ""
    why = "DATABASE_URL is set" if config.database_url else f"it listens on {config.host}"
    if "secret_key" in config.generated:
        return (
            f"SENTINEL_SECRET_KEY is not set, and must be in production ({why}); make one with `openssl rand -hex 32`."
        )
    if problem := secrets.weakness(config.secret_key):
        return f"SENTINEL_SECRET_KEY {problem}, and must be strong in production ({why}); make one with `openssl rand -hex 32`."
    if "key_peppers" in config.generated:
        return f"SENTINEL_KEY_PEPPERS is not set, and must be in production ({why}); set it to 1: and `openssl rand -hex 32`."
    for number, key in config.key_peppers.items():
        if problem := secrets.weak_pepper(key):
            return f"SENTINEL_KEY_PEPPERS: number {number} {problem}, and must be strong in production ({why})."
    return ""


def unknown(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Name the variables that look like settings and are none: most likely a slip of the pen."""
    known = {item.metadata["variable"] for item in SETTINGS}
    return sorted(name for name in environ if name.startswith("SENTINEL_") and name not in known)


def loopback(host: str) -> bool:
    """Tell whether an address to listen on is reachable from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _read(item: dataclasses.Field[Any], raw: str) -> Any:
    try:
        return item.metadata["parse"](raw)
    except ValueError as error:
        shown = "" if item.metadata["secret"] else f" (it is {raw[:60]!r})"
        raise ConfigError(f"{item.metadata['variable']} {error}{shown}.") from None


def _prepare(var: Path) -> None:
    """Make the state folder, for its owner alone."""
    try:
        fresh = not var.exists()
        var.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = var.stat()
        if status.st_mode & 0o022 and not fresh:
            raise ConfigError(f"SENTINEL_VAR: others may write to {var}; use a folder of its own with mode 0700.")
        ours = fresh or (var / "secrets").exists() or not any(var.iterdir())
        if status.st_mode & 0o077 and ours and status.st_uid == os.geteuid():
            var.chmod(0o700)
        if not os.access(var, os.R_OK | os.W_OK | os.X_OK):
            raise ConfigError(f"SENTINEL_VAR: {var} cannot be written by this user.")
    except OSError as error:
        raise ConfigError(f"SENTINEL_VAR: {var} cannot be used: {error.strerror}.") from None


def document() -> str:
    """Write docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "All settings come from the environment. Lists are comma-separated; sizes read `4MiB`, durations `30`, `30s` or `5m`.",
        "An empty variable counts as not set. A value that cannot be used stops the start with one line that names it.",
        "",
        "*Production* means that `DATABASE_URL` is set or that `serve` listens beyond loopback: there a missing or weak secret",
        "refuses the start. Elsewhere secrets that are not given are made once and kept in `SENTINEL_VAR/secrets`, mode 0600.",
        "",
        "This page is written from the code by `make docs-settings`.",
        "",
        "| Variable | Default | Meaning |",
        "|---|---|---|",
    ]
    for item in SETTINGS:
        lines.append(f"| `{item.metadata['variable']}` | {_default(item)} | {item.metadata['help']} |")
    return "\n".join(lines) + "\n"


def _default(item: dataclasses.Field[Any]) -> str:
    if item.metadata["shown"]:
        shown: str = item.metadata["shown"]
        return shown if "`" in shown or " " in shown else f"`{shown}`"
    if item.default in ("", (), None) or item.default is dataclasses.MISSING:
        return "none"
    value = ",".join(item.default) if isinstance(item.default, tuple) else item.default
    return f"`{value}`"


if __name__ == "__main__":
    sys.stdout.write(document())
