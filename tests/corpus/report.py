"""Recall and false redaction over the corpus: `python -m tests.corpus.report [--seed N] [--rounds N] [--misses N]`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence

from audit.redaction.detect.pii import KINDS
from audit.redaction.rules import RedactionRuleSet
from audit.redaction.sanitizer import Payload, Sanitizer
from tests.corpus import benign, secrets


def leaks(shown: str, secret: str) -> bool:
    """Whether a secret, or the greater part of it, can be read in a text."""
    plain = json.loads(shown) if shown else None
    texts = [shown, json.dumps(plain, ensure_ascii=False)]
    part = max(6, len(secret) * 3 // 5)
    pieces = (
        {secret}
        if len(secret) <= 6
        else {secret[i : i + part] for i in (0, (len(secret) - part) // 2, len(secret) - part)}
    )
    if "\n" in secret:
        pieces = {line for line in secret.split("\n") if len(line) > 30 and "-----" not in line}
    escaped = {json.dumps(piece)[1:-1] for piece in pieces}
    return any(piece in text for text in texts for piece in pieces | escaped)


def sanitise(sanitizer: Sanitizer, payload: object) -> Payload:
    return (
        sanitizer.payload(raw=payload)
        if isinstance(payload, bytes)
        else sanitizer.payload(raw=json.dumps(payload).encode())
    )


def kinds(seed: int, count: int) -> int:
    """Count what each opt-in kind redacts in harmless strings that hold none of it (addresses hold e-mail addresses)."""
    for kind in sorted(KINDS):
        sanitizer = Sanitizer(b"corpus" * 6, RedactionRuleSet(kinds=frozenset({kind})))
        hits: Counter[str] = Counter()
        total = 0
        for harmless in benign.cases(seed, count):
            total += 1
            hits[harmless.kind] += f"[REDACTED:{kind}:" in (sanitise(sanitizer, harmless.payload).json or "")
        print(
            f"{kind:6} {hits.total():5} of {total}: " + ", ".join(f"{name} {n}" for name, n in hits.most_common() if n)
        )
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure what redaction finds, and what it should have left alone.")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--benign", type=int, default=6_000)
    parser.add_argument("--misses", type=int, default=40, help="how many misses to list")
    parser.add_argument("--kinds", action="store_true", help="measure the opt-in kinds on the harmless strings alone")
    options = parser.parse_args(argv)
    if options.kinds:
        return kinds(options.seed, options.benign)
    sanitizer = Sanitizer(b"corpus" * 6)
    started = time.perf_counter()

    missed: list[secrets.Case] = []
    total: Counter[str] = Counter()
    by_position: Counter[str] = Counter()
    for case in secrets.cases(options.seed, options.rounds):
        total[case.position] += 1
        shown = sanitise(sanitizer, case.payload).json or ""
        if any(leaks(shown, secret) for secret in case.secrets):
            missed.append(case)
            by_position[case.position] += 1
    false: list[tuple[benign.Benign, str]] = []
    benign_total: Counter[str] = Counter()
    by_kind: Counter[str] = Counter()
    for harmless in benign.cases(options.seed, options.benign):
        benign_total[harmless.kind] += 1
        shown = sanitise(sanitizer, harmless.payload).json or ""
        if json.loads(shown) != json.loads(json.dumps(harmless.payload)) and "[REDACTED:" in shown:
            false.append((harmless, shown))
            by_kind[harmless.kind] += 1

    secret_count, benign_count = total.total(), benign_total.total()
    own = [case for case in missed if case.format == "own-key"]
    recall, alarms = 1 - len(missed) / secret_count, len(false) / benign_count
    print(
        f"{len(secrets.FORMATS)} formats x {len(secrets.POSITIONS)} positions, {secret_count} secrets; {benign_count} benign; {time.perf_counter() - started:.1f} s"
    )
    print(
        f"recall           {recall:8.3%}   (at least 99 %; own keys {'all found' if not own else f'{len(own)} MISSED'})"
    )
    print(f"false redaction  {alarms:8.3%}   (at most 1 %)")
    for position, count in total.items():
        print(f"  {position:18} {count - by_position[position]:5} of {count}")
    for kind, count in benign_total.items():
        print(f"  {kind:22} {by_kind[kind]:4} of {count} redacted")
    for case in missed[: options.misses]:
        print(f"MISSED {case.format} / {case.position}: {case.payload!r}"[:400])
    for harmless, shown in false[: options.misses]:
        print(f"FALSE {harmless.kind}: {harmless.text or harmless.payload!r}"[:200] + f"  ->  {shown}"[:260])
    return 0 if recall >= 0.99 and alarms <= 0.01 and not own else 1


if __name__ == "__main__":
    sys.exit(main())
