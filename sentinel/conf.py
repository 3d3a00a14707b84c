"""The settings of an installation, read from the environment once."""

from __future__ import annotations

import hashlib
import os
import secrets
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Every setting, typed; see docs/settings.md for what each means."""

    var: Path
    database_url: str = ""
    owner_database_url: str = ""
    redis_url: str = ""
    secret_key: str = ""
    key_peppers: dict[int, bytes]
    redaction_key: bytes
    data_key: bytes
    instance: str
    public_url: str = ""
    trusted_proxies: tuple[Network, ...] = ()
    metrics_token: str = ""
    audit_mode: str = "strict"
    audit_fsync: bool = True
    audit_retention_days: int = 90
    audit_disk_budget: int = 4 * 1024**3
    upstream_networks: tuple[Network, ...] = ()
    allowed_hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]")
    allowed_origins: tuple[str, ...] = ()
    max_body_bytes: int = 4 * 1024**2
    max_answer_bytes: int = 64 * 1024**2
    refusals: str = "auto"
    query_keys: bool = True
    snapshot_max_age: float = 300.0
    connect_timeout: float = 5.0
    first_byte_timeout: float = 60.0
    idle_timeout: float = 300.0
    keepalive_interval: float = 15.0
    body_timeout: float = 30.0
    max_streams: int = 4000
    max_streams_per_key: int = 200
    limiter_fail: str = "closed"
    second_factor_groups: tuple[str, ...] = ()
    log_level: str = "INFO"
    production: bool = False
    demo: bool = False


def load(environ: dict[str, str] | os._Environ[str] = os.environ) -> Config:
    """Read the environment (a first version: the infrastructure room replaces it)."""
    var = Path(environ.get("SENTINEL_VAR", "var")).absolute()
    var.mkdir(parents=True, exist_ok=True, mode=0o700)
    seed_file = var / "seed"
    if not seed_file.exists():
        seed_file.write_text(secrets.token_hex(32))
    seed = seed_file.read_bytes()

    def derive(label: str) -> bytes:
        return hashlib.blake2b(seed, person=label.encode()[:16]).digest()[:32]

    return Config(
        var=var,
        database_url=environ.get("DATABASE_URL", ""),
        secret_key=derive("secret").hex(),
        key_peppers={1: derive("pepper")},
        redaction_key=derive("redaction"),
        data_key=derive("data"),
        instance=derive("instance").hex()[:8],
        upstream_networks=(ip_network("127.0.0.0/8"),),
    )
