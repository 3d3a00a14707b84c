"""`make interop`: real servers and clients, directly and through the gateway; the tables of docs/interop.md.

Everything is installed first, from the package indexes, with the versions that `tests/interop/locks` pin.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable

from tests.interop import clients_table, install, races, refusals, report
from tests.interop.clients_table import CLIENTS, Client
from tests.interop.refusals import Played
from tests.interop.roads import Walked, World, world
from tests.interop.servers import SERVERS, Server

Say = Callable[[str], None]


def main(argv: list[str] | None = None) -> int:
    """Walk, print as it goes, write the page; the exit code is 0 when nothing differs that should not."""
    parser = argparse.ArgumentParser(prog="python -m tests.interop", description=__doc__)
    parser.add_argument(
        "what", nargs="?", choices=("walk", "lock"), default="walk", help="lock: write the lock files anew"
    )
    parser.add_argument(
        "--only", action="append", help="only servers and clients whose names contain this; writes no page"
    )
    parser.add_argument(
        "--rounds", type=int, default=100, help="rounds of clients that connect while a process starts (100)"
    )
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what it started ends with it
    if options.what == "lock":
        install.lock()
        return 0
    wanted = options.only or [""]
    servers = [server for server in SERVERS if any(part in server.name for part in wanted)]
    clients = [c for c in CLIENTS if any(part in c.name for part in wanted) and clients_table.there(c)]
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {text}", flush=True)

    say("installing")
    for name in sorted({each.installed for each in (*servers, *clients) if each.installed} | {"mcp-2", "mcp-1.30"}):
        install.one(name)
    with world() as around:
        wrong = races.rounds(around, options.rounds)
        say(f"{options.rounds} rounds of starting together: {len(wrong) or 'nothing'} wrong")
        walked = _servers(around, servers, say)
        played = _clients(around, clients, say)
    for line in wrong:
        say(line)
    unexpected = report.unexpected(walked, played)
    print("\n".join(("", f"{len(unexpected)} differences that are not meant", *unexpected)))
    if options.only is None:
        report.write(report.page(walked, played, (options.rounds, wrong)))
    return 1 if unexpected or wrong else 0


def _servers(around: World, servers: list[Server], say: Say) -> list[Walked]:
    walked: list[Walked] = []
    for server in servers:
        for each in around.walked(server):
            walked.append(each)
            say(f"{server.name}, {each.road.name}: {', '.join(each.differences) or 'same'}")
    return walked


def _clients(around: World, clients: list[Client], say: Say) -> list[Played]:
    played: list[Played] = []
    for one in refusals.played(around, clients):
        played.append(one)
        say(f"{one.client.name}, {one.transport}: {', '.join((*one.differences, *one.broken)) or 'same'}")
    return played


if __name__ == "__main__":
    sys.exit(main())
