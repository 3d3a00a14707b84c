"""Which rate limits apply to a request (pure); how they are counted is the limiter's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from policies import glob
from policies.specs import LimitSpec

if TYPE_CHECKING:
    from policies.engine import Principal, Target
    from policies.snapshot import Snapshot

CACHE_SIZE = 4096


class LimitIndex:
    """The enabled limits, by what they ask, with a bounded memory of what applied to whom."""

    def __init__(self, specs: Iterable[LimitSpec]) -> None:
        self.specs = tuple(spec for spec in specs if spec.enabled)
        self._matchers = {spec.pattern: glob.matcher(spec.pattern) for spec in self.specs if spec.pattern}
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
            and spec.kind in ("", kind)
            and (not spec.pattern or self._matchers[spec.pattern](name))
        ]
        replaced = {(spec.kind, frozenset(spec.per)) for spec in found if spec.pattern and not spec.is_default}
        return tuple(s for s in found if not (s.is_default and (s.kind, frozenset(s.per)) in replaced))


def limits_for(snapshot: Snapshot, principal: Principal, target: Target | None) -> tuple[LimitSpec, ...]:
    """The limits that count this request; `target` None is protocol traffic that names none.

    The bucket of each is made of the limit's id and the identities it lists in `per`.
    """
    index = snapshot.policy.limits
    if target is None:
        return index.find(principal.role, principal.key_prefix, "", "", "")
    return index.find(principal.role, principal.key_prefix, target.kind, target.upstream, target.name)
