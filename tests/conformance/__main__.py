"""`make conformance`: both revisions through `serve` and through Daphne (and, to compare, without a gateway)."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.conformance import suite
from tests.support.fixtures import Everything
from tests.support.gateway import Gateway

SERVERS = ("direct", "serve", "daphne")


@contextmanager
def address(server: str, upstream: Everything) -> Iterator[tuple[str, str]]:
    """An address of the everything server, with the key it needs: itself, or behind a gateway with every control on."""
    if server == "direct":
        yield upstream.url.replace("127.0.0.1", "localhost"), ""
        return
    with Gateway(server=server) as gateway:
        gateway.add_upstream("everything", upstream.url)
        key = gateway.create_key("conformance", "admin")
        time.sleep(1)
        yield f"http://localhost:{gateway.port}/mcp/everything", key.key


def table(server: str, outcome: suite.Outcome) -> str:
    """The scenarios of one run as text."""
    verdict = "pass" if outcome.complete else "FAIL"
    lines = [f"\n{server} · {outcome.revision}: {outcome.good} of {suite.REVISIONS[outcome.revision]} — {verdict}"]
    width = max((len(scenario.name) for scenario in outcome.scenarios), default=0)
    for scenario in outcome.scored:
        mark = "ok  " if scenario.passed and not scenario.failed else "FAIL"
        lines.append(f"  {mark} {scenario.name:<{width}}  {scenario.passed:>2} passed {scenario.failed:>2} failed")
    extra = [scenario for scenario in outcome.scenarios if not scenario.scored]
    if extra:
        good = ", ".join(scenario.name for scenario in extra if not scenario.failed)
        lines.append(f"  not scored, passed too: {good or 'none'}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run and print; the exit code is 0 when every scored scenario passed everywhere."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=(__doc__ or "").strip())
    parser.add_argument("--server", choices=SERVERS, action="append", help="what to run through (serve and daphne)")
    parser.add_argument("--revision", choices=sorted(suite.REVISIONS), action="append", help="which revision (both)")
    parser.add_argument("--verbose", action="store_true", help="print the suite's own output for failures")
    options = parser.parse_args(argv)
    failed = False
    with Everything() as upstream:
        for server in options.server or ["serve", "daphne"]:
            with address(server, upstream) as (url, key):
                for revision in options.revision or sorted(suite.REVISIONS):
                    outcome = suite.run(url, revision, key)
                    print(table(server, outcome), flush=True)
                    if not outcome.complete:
                        failed = True
                        if options.verbose:
                            print(outcome.output)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
