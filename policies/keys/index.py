"""Whose key is it, and may it be used here and now? Answered from memory, in constant work (pure)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from policies.engine.compiled import network_check
from policies.engine.conditions import YES
from policies.engine.types import Principal
from policies.keys import credentials


@dataclass(frozen=True, slots=True)
class KeySecretRecord:
    """One generation of a secret; `not_after` in seconds since 1970."""

    generation: int
    pepper_id: int
    digest: bytes
    not_after: float | None

    def __repr__(self) -> str:
        return f"KeySecretRecord(generation={self.generation})"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """A key as the gateway knows it, whether it is live or not."""

    id: UUID
    public_id: str
    name: str
    role: str = ""
    duty: str = ""
    owner: str = ""
    expires_at: float | None = None
    revoked_at: float | None = None
    networks: tuple[str, ...] = ()
    upstreams: frozenset[str] = frozenset()
    query_allowed: bool = True
    secrets: tuple[KeySecretRecord, ...] = ()
    principal: Principal = field(init=False)
    in_network: Callable[[str | None], int] | None = field(init=False)
    accepted: dict[int, AuthResult] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        principal = Principal(self.id, self.name, self.prefix, self.role, self.upstreams)
        object.__setattr__(self, "principal", principal)
        object.__setattr__(self, "in_network", network_check(self.networks) if self.networks else None)
        accepted = {
            s.generation: AuthResult(None if self.duty else principal, "", self, s.generation, self.prefix)
            for s in self.secrets
        }
        object.__setattr__(self, "accepted", accepted)

    @property
    def prefix(self) -> str:
        """The part of the key that may be shown."""
        return credentials.PREFIX + self.public_id

    def is_live(self, now: float, generation: int | None = None) -> bool:
        """Neither revoked nor expired, nor (when it is told) that generation of its secret."""
        if self.revoked_at is not None or (self.expires_at is not None and now >= self.expires_at):
            return False
        return generation is None or any(
            secret.generation == generation and (secret.not_after is None or now < secret.not_after)
            for secret in self.secrets
        )


@dataclass(frozen=True, slots=True)
class AuthResult:
    """Who it is, or why not. `failure` is the event's exact reason; a caller is told less.

    `key` is the key whose secret was right, also when it may not be used; `prefix` is what a well-formed credential
    says of itself; `fingerprint` is a keyed one of what was presented, only after a failure.
    """

    principal: Principal | None
    failure: str
    key: KeyRecord | None = None
    generation: int = 0
    prefix: str = ""
    fingerprint: str = ""


class KeyRing:
    """All keys and the peppers, and the uses seen since they were last written down."""

    __slots__ = ("_dummy", "_newest", "_used", "by_id", "by_public_id", "fingerprint", "peppers")

    def __init__(
        self,
        keys: Mapping[str, KeyRecord],
        peppers: Mapping[int, bytes],
        *,
        used: dict[str, tuple[float, str, bool]] | None = None,
        fingerprint: Callable[[str], str] | None = None,
    ) -> None:
        self.by_public_id = keys
        self.by_id = {str(key.id): key for key in keys.values()}
        self.peppers = dict(peppers)
        self.fingerprint = fingerprint
        self._newest = self.peppers[credentials.newest_pepper(self.peppers)]
        self._dummy = bytes(32)
        self._used = {} if used is None else used

    def authenticate(self, presented: str, now: float, client_ip: str | None, via: str = "bearer") -> AuthResult:
        """Authenticate an agent: only a key that holds a role passes."""
        result = self.identify(presented, now, client_ip, via)
        if result.failure or result.principal is not None:
            return result
        return AuthResult(None, "administrative_key", result.key, result.generation, result.prefix)

    def authenticate_administrator(
        self, presented: str, now: float, client_ip: str | None, via: str = "bearer"
    ) -> AuthResult:
        """Authenticate a caller of the API: only an administrative key passes; its duty is `result.key.duty`."""
        result = self.identify(presented, now, client_ip, via)
        if result.failure or result.principal is None:
            return result
        return AuthResult(None, "agent_key", result.key, result.generation, result.prefix)

    def identify(self, presented: str, now: float | datetime, client_ip: str | None, via: str) -> AuthResult:
        """Find the key and check that it may be used here and now, by the same steps whatever it is for."""
        if isinstance(now, datetime):
            now = now.timestamp()
        parsed = credentials.parse(presented)
        if parsed is None:
            return self._failure("invalid_credential", presented)
        public_id, secret = parsed
        key = self.by_public_id.get(public_id)
        found = self._match(key, public_id, secret)
        if key is None or found is None:
            return self._failure("invalid_credential", presented, prefix=credentials.PREFIX + public_id)
        if key.revoked_at is not None:
            failure = "revoked_key"
        elif (key.expires_at is not None and now >= key.expires_at) or (
            found.not_after is not None and now >= found.not_after
        ):
            failure = "expired_key"
        elif key.in_network is not None and key.in_network(client_ip) != YES:
            failure = "wrong_network"
        elif via == "query" and not key.query_allowed:
            failure = "query_forbidden"
        else:
            self._used[public_id] = (now, client_ip or "", via == "query")
            return key.accepted[found.generation]
        return self._failure(failure, presented, key, found.generation, key.prefix)

    def _match(self, key: KeyRecord | None, public_id: str, secret: str) -> KeySecretRecord | None:
        """Compare with every generation; an unknown key is compared with a dummy, at the same cost."""
        if key is None or not key.secrets:
            credentials.matches(self._dummy, credentials.digest(self._newest, public_id, secret))
            return None
        found: KeySecretRecord | None = None
        pepper_id, digest = -1, b""
        for candidate in key.secrets:
            if candidate.pepper_id != pepper_id:
                pepper_id = candidate.pepper_id
                pepper = self.peppers.get(pepper_id)
                digest = credentials.digest(pepper or self._newest, public_id, secret) if pepper else self._dummy
            if credentials.matches(candidate.digest, digest) and digest is not self._dummy:
                found = candidate
        return found

    def _failure(
        self, reason: str, presented: str, key: KeyRecord | None = None, generation: int = 0, prefix: str = ""
    ) -> AuthResult:
        fingerprint = self.fingerprint(presented) if self.fingerprint is not None and presented else ""
        return AuthResult(None, reason, key, generation, prefix, fingerprint)

    def without_pepper(self) -> list[str]:
        """The prefixes of live keys none of whose secrets can be checked, because their pepper is not configured."""
        return sorted(
            key.prefix
            for key in self.by_public_id.values()
            if key.revoked_at is None and key.secrets and all(s.pepper_id not in self.peppers for s in key.secrets)
        )
