"""Can any arguments be allowed? Decides what a list may show, and finds rules that can never match (pure).

Comparisons cut the values of one argument into finitely many regions in which every condition answers the same. One
value per region is tried, so for such conditions "nothing found" is a proof. Where patterns, paths, lengths or lists
take part, nothing found means "not known", and the target is listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from policies.engine.conditions import (
    ITEMS,
    MAX_EXACT,
    MISSING,
    NO,
    YES,
    Check,
    Step,
    exact_number,
    is_number,
    parse_path,
)
from policies.specs import ConditionSpec

EXACT_OPERATORS: Final = frozenset(("eq", "ne", "in", "not_in", "lt", "le", "gt", "ge", "present", "absent", "type"))
BUDGET: Final = 4000  # whole argument objects tried for one question
MOST_PATHS: Final = 200  # more arguments than these are not looked at together
WORK: Final = 200_000  # looks at a condition, for one question
BEYOND: Final = MAX_EXACT * 128  # a number that no condition can read


@dataclass(frozen=True, slots=True)
class Reach:
    """`found` True with an example, False when proven impossible, None when not known."""

    found: bool | None
    example: Any = None


@dataclass(frozen=True, slots=True)
class _Several:
    """The values of the items of a list, for a path with []."""

    values: tuple[Any, ...]


Pair = tuple[ConditionSpec, Check]
#: what a rule asks of the arguments: all of it must hold
Asked = list[Pair]


def _numbers(constants: Iterable[Any]) -> list[Any]:
    """One number per region that these constants cut the line into, whole and not, and the constants themselves."""
    known = sorted({n for c in constants if (n := exact_number(c)) is not None})
    if not known:
        return [0, 0.5, BEYOND]
    found: list[Any] = [BEYOND]
    edges = [known[0] - 2, *known, known[-1] + 2]
    for low, high in pairwise(edges):
        middle = (low + high) / 2
        found += [low, middle, int(middle), int(low) + 1, (low + middle) / 2]
    found += [known[0] - 1, known[0] - 1.5, known[-1] + 1, known[-1] + 1.5]
    return [n for n in dict.fromkeys(found) if n == BEYOND or exact_number(n) is not None]


def _values(specs: Sequence[ConditionSpec]) -> list[Any]:
    """Values of one argument, at least one per region these conditions can tell apart."""
    constants: list[Any] = []
    texts: list[str] = []
    lengths: set[int] = set()
    for spec in specs:
        if spec.operator in ("in", "not_in"):
            constants += spec.value
        elif spec.operator in ("like", "not_like"):
            texts += [spec.value.replace("*", "").replace("?", "x"), spec.value.replace("*", "x").replace("?", "x")]
        elif spec.operator in ("under", "not_under"):
            texts += [spec.value, spec.value.rstrip("/") + "/x"]
        elif spec.operator in ("min_length", "max_length"):
            lengths |= {max(0, min(int(spec.value) + step, 100_000)) for step in (-1, 0, 1)}
        elif spec.operator not in ("type", "present", "absent", "matches", "not_matches"):
            constants.append(spec.value)
    texts += [c for c in constants if isinstance(c, str)]
    fresh = "x"
    while fresh in texts:
        fresh += "x"
    texts += [fresh, ""]
    texts += ["x" * n for n in lengths]
    numbers = _numbers([c for c in constants if is_number(c)])
    lists = [[fresh] * n for n in lengths] if lengths else []
    return [MISSING, *dict.fromkeys(texts), *numbers, True, False, [], {}, *lists]


def _put(root: dict[str, Any], steps: tuple[Step, ...], value: Any) -> bool:
    """Set a value in nested objects and lists; False where it would contradict what stands there."""
    if value is MISSING:
        return True
    at: Any = root
    for index, step in enumerate(steps):
        last = index == len(steps) - 1
        if step is ITEMS:
            return _put_items(at, steps[index + 1 :], value)
        follow: Any = [] if not last and steps[index + 1] is ITEMS else {}
        if not isinstance(at, dict):
            return False
        if last:
            if step in at:
                return False
            at[step] = value.copy() if isinstance(value, list | dict) else value  # what follows may add to it
        else:
            at = at.setdefault(step, follow)
    return True


def _put_items(at: Any, rest: tuple[Step, ...], value: Any) -> bool:
    if not isinstance(at, list):
        return False
    values = value.values if isinstance(value, _Several) else (value,)
    if not rest:
        at.extend(values)
        return True
    for index, one in enumerate(values):
        while len(at) <= index:
            at.append([] if rest[0] is ITEMS else {})
        if rest[0] is ITEMS:
            if not _put_items(at[index], rest[1:], one):
                return False
        elif not isinstance(at[index], dict) or not _put(at[index], rest, one):
            return False
    return True


def _spread(values: list[Any]) -> list[Any]:
    """Lists of none, one and two of these values."""
    few = [v for v in values if v is not MISSING][:12]
    return [
        MISSING,
        _Several(()),
        *(_Several((v,)) for v in few),
        *(_Several((v, w)) for v in few for w in few if v is not w),
    ]


def some_arguments(allows: Sequence[Asked], denies: Sequence[Asked], work: list[int] | None = None) -> Reach:
    """Look for arguments for which one of `allows` holds and none of `denies` does, as far as the work goes.

    `work` (one number, which is counted down) is for whoever asks many questions and has so much for all.
    """
    undecided = False
    work = [WORK] if work is None else work
    budget = [BUDGET]
    for allow in allows:
        reach = _for_one(allow, denies, budget, work)
        if reach.found:
            return reach
        undecided = undecided or reach.found is None
    return Reach(None if undecided else False)


def _for_one(wanted: Asked, refused: Sequence[Asked], budget: list[int], work: list[int]) -> Reach:
    if work[0] <= 0:
        return Reach(None)
    by_path: dict[str, list[ConditionSpec]] = {}
    for spec, _ in [*wanted, *(pair for rule in refused for pair in rule)]:
        by_path.setdefault(spec.path, []).append(spec)
    if len(by_path) > MOST_PATHS:
        return Reach(None)
    steps = {path: parse_path(path) for path in by_path}
    exact = _is_exact(by_path, steps)
    choices: list[tuple[tuple[Step, ...], list[Any]]] = []
    for path, specs in by_path.items():
        values = _values(specs)
        if ITEMS in steps[path]:
            values = _spread(values)
        work[0] -= len(values) * len(specs)
        if work[0] < 0:
            return Reach(None)
        kept = _order(path, steps[path], values, wanted, refused)
        if not kept:
            return Reach(False if exact or _path_exact(specs, steps[path]) else None)
        choices.append((steps[path], kept))
    each = len(wanted) + sum(map(len, refused))
    for arguments in _combinations(choices, budget):
        work[0] -= each
        if work[0] < 0:
            return Reach(None)
        if all(check(arguments) == YES for _, check in wanted) and not any(
            all(check(arguments) != NO for _, check in rule) for rule in refused
        ):
            return Reach(True, arguments)
    return Reach(False if exact and budget[0] > 0 else None)


def _path_exact(specs: Iterable[ConditionSpec], steps: tuple[Step, ...]) -> bool:
    return ITEMS not in steps and all(spec.operator in EXACT_OPERATORS for spec in specs)


def _is_exact(by_path: dict[str, list[ConditionSpec]], steps: dict[str, tuple[Step, ...]]) -> bool:
    if not all(_path_exact(specs, steps[path]) for path, specs in by_path.items()):
        return False
    ways = sorted(steps.values(), key=len)
    return not any(b[: len(a)] == a for i, a in enumerate(ways) for b in ways[i + 1 :])


def _order(path: str, steps: tuple[Step, ...], values: list[Any], wanted: Asked, refused: Sequence[Asked]) -> list[Any]:
    """The values that the allowing rule accepts here, those that defeat most denying rules first."""
    needs = [check for spec, check in wanted if spec.path == path]
    against = [check for rule in refused for spec, check in rule if spec.path == path]
    scored: list[tuple[int, int, Any]] = []
    for index, value in enumerate(values):
        alone: dict[str, Any] = {}
        if not _put(alone, steps, value) or any(check(alone) != YES for check in needs):
            continue
        scored.append((-sum(check(alone) == NO for check in against), index, value))
    scored.sort(key=lambda item: item[:2])
    return [value for _, _, value in scored]


def _combinations(choices: list[tuple[tuple[Step, ...], list[Any]]], budget: list[int]) -> Iterator[dict[str, Any]]:
    """Every whole arguments object, best guesses first, as far as the budget goes."""

    def extend(at: int, chosen: list[Any]) -> Iterator[dict[str, Any]]:
        if budget[0] <= 0:
            return
        if at == len(choices):
            budget[0] -= 1
            arguments: dict[str, Any] = {}
            if all(_put(arguments, steps, value) for (steps, _), value in zip(choices, chosen, strict=True)):
                yield arguments
            return
        for value in choices[at][1]:
            yield from extend(at + 1, [*chosen, value])

    yield from extend(0, [])
