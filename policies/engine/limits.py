"""Which rate limits apply to a request (pure); how they are counted is the limiter's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

from policies.engine import glob, uris
from policies.engine.dispatchers import Inner
from policies.engine.types import Principal, Target
from policies.specs import LimitSpec
from policies.vocabulary import UNSEEN

CACHE_SIZE = 4096


class LimitIndex:
    """The enabled limits, by what they ask, with a bounded memory of what applied to whom."""

    def __init__(self, specs: Iterable[LimitSpec]) -> None:
        self.specs = tuple(spec for spec in specs if spec.enabled)
        self._matchers = {spec.pattern: uris.matcher(spec.pattern) for spec in self.specs if spec.pattern}
        self._keys = frozenset(spec.key for spec in self.specs if spec.key is not None)
        self._cache: dict[tuple[str, str, str, str, str], tuple[LimitSpec, ...]] = {}

    def find(self, role: str, key_prefix: str, kind: str, upstream: str, name: str) -> tuple[LimitSpec, ...]:
        """The limits that count this request; those that name the tool replace defaults of the same buckets."""
        if not self.specs:
            return ()
        named = key_prefix if key_prefix in self._keys else ""
        place = (role, named, kind, upstream, name)
        known = self._cache.get(place)
        if known is None:
            known = self._gather(*place)
            if len(name) <= 256:
                if len(self._cache) >= CACHE_SIZE:
                    self._cache = {}
                self._cache[place] = known
        return known

    def _gather(self, role: str, key_prefix: str, kind: str, upstream: str, name: str) -> tuple[LimitSpec, ...]:
        found = [
            spec
            for spec in self.specs
            if spec.key in (None, key_prefix)
            and spec.role in (None, role)
            and spec.upstream in ("", upstream)
            and (spec.kind == ("tool" if kind == UNSEEN else kind) or (not spec.kind and kind != "method"))
            and (not spec.pattern or self._matchers[spec.pattern](kind, name))
        ]
        replaced = {(spec.kind, frozenset(spec.per)) for spec in found if spec.pattern and not spec.is_default}
        return tuple(s for s in found if not (s.is_default and (s.kind, frozenset(s.per)) in replaced))


@dataclass(frozen=True, slots=True)
class LimitRef:
    """One limit and the bucket of it that a request counts in."""

    bucket: bytes
    spec: LimitSpec
    count: int = 1  # places that the request takes
    #: whose share of the table a bucket takes that is named by what the caller asks for; b"" where it is not
    namer: bytes = b""


def limits_for(
    index: LimitIndex, principal: Principal, target: Target, within: Sequence[Inner] = ()
) -> tuple[LimitRef, ...]:
    """The limits that count this request, with their buckets. A method counts in those alone that speak of methods.

    A target that calls others by name counts as those do when they are called themselves, and where none of them counts once
    as itself.
    """
    if not index.specs:
        return ()
    found = _refs(index, principal, target)
    if not within:
        return found
    counts: Counter[bytes] = Counter()
    inner: dict[bytes, LimitRef] = {}
    for call in within:
        buckets: dict[bytes, LimitRef] = {}
        for reading in call:
            buckets |= {ref.bucket: ref for ref in _refs(index, principal, reading, UNSEEN)}
        counts.update(buckets.keys())
        inner |= buckets
    outer = {ref.bucket: ref for ref in found}
    return tuple(replace(ref, count=max(1, counts[name])) for name, ref in (outer | inner).items())


def _refs(index: LimitIndex, principal: Principal, target: Target, kind: str = "") -> tuple[LimitRef, ...]:
    return tuple(
        LimitRef(
            bucket(spec, principal, target), spec, namer=principal.key_prefix.encode() if "tool" in spec.per else b""
        )
        for spec in index.find(principal.role, principal.key_prefix, kind or target.kind, target.upstream, target.name)
    )


def bucket(spec: LimitSpec, principal: Principal, target: Target) -> bytes:
    """What tells this bucket of a limit from its others: the limit's id and the identities it is counted per."""
    parts = [str(spec.id)]
    for identity in spec.per:
        if identity == "key":
            parts.append(principal.key_prefix)
        elif identity == "role":
            parts.append(principal.role)
        elif identity == "upstream":
            parts.append(target.upstream)
        else:
            name = target.name
            if spec.pattern and glob.is_literal(spec.pattern):
                name = spec.pattern  # whatever variant of it was sent
            elif target.kind == "resource":
                name = uris.readings(name)[0]
            parts.append(f"{target.kind}:{name}")
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return text if len(text) <= 256 else blake2b(text, digest_size=32).digest()
