"""The tables of docs/interop.md: what was walked, and what differed."""

from __future__ import annotations

import platform
import re
import subprocess
from datetime import date
from pathlib import Path

from tests.interop import install, known
from tests.interop.refusals import ALIKE, Played
from tests.interop.roads import ROADS, Walked
from tests.interop.walk import STEPS
from tests.support import clients

PAGE = Path(__file__).resolve().parents[2] / "docs" / "interop.md"
BEGIN = "<!-- made by `make interop`: from here -->"
END = "<!-- made by `make interop`: to here -->"


def unexpected(walked: list[Walked], played: list[Played]) -> list[str]:
    """What is no difference that is meant."""
    found = [
        f"{each.server.name}, {each.road.name}, {step}: {told}"
        for each in walked
        for step, told in each.differences.items()
        if not known.why(each.server.name, each.road.name, step)
    ]
    for one in played:
        place = f"{one.client.name}, {one.transport}"
        found += [f"{place}, {step}: {told}" for step, told in one.differences.items()]
        found += [
            f"{place}: a call {step.replace('that', 'a limit').replace('it', 'a denial')} fails" for step in one.broken
        ]
    return found


def page(walked: list[Walked], played: list[Played], raced: tuple[int, list[str]]) -> str:
    """The generated part."""
    rounds, wrong = raced
    notes: dict[str, dict[str, None]] = {}
    parts = [
        _run_on(),
        _servers(walked, notes),
        _list("Differences of servers", notes),
        _roads(walked),
        _clients(played),
        _refusals(played),
        f"### Starting together\n\n{rounds} rounds of three clients that connect while the process they share is still starting: "
        + (
            f"{len(wrong)} went wrong ({wrong[0]})."
            if wrong
            else "each client got the server's own answer, every time."
        ),
    ]
    return "\n\n".join(part for part in parts if part)


def write(text: str) -> None:
    """Put the generated part into the page."""
    whole = PAGE.read_text(encoding="utf-8")
    before, after = whole.partition(BEGIN)[0], whole.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def _run_on() -> str:
    node = subprocess.run([clients.node(), "--version"], capture_output=True, text=True, check=True).stdout.strip()
    on = f"Python {platform.python_version()} and Node {node.removeprefix('v')}, on {platform.system()}"
    return f"Run on {date.today():%-d %B %Y} with {on}."


def _servers(walked: list[Walked], notes: dict[str, dict[str, None]]) -> str:
    names = ["initialize", *(name for name, _ in STEPS)]
    rows = []
    servers = dict.fromkeys(each.server for each in walked)
    for server in servers:
        mine = [each for each in walked if each.server == server]
        cells = [_cell(mine, name, notes) for name in names]
        rows.append([f"{server.name} ({server.package} {install.version(server.installed, server.package)})", *cells])
    head = f"### Servers by what they offer\n\n{len(servers)} servers. `=`: the same as directly on every road; "
    return (
        head
        + "`·`: not offered, or not to be had here; a number: differs, see below.\n\n"
        + _table(["Server", *names], rows)
    )


def _cell(mine: list[Walked], step: str, notes: dict[str, dict[str, None]]) -> str:
    """One step of one server on all its roads; `notes` collects each difference with the roads it was seen on."""
    differing = [each for each in mine if step in each.differences]
    if not differing:
        return "=" if any(step in each.direct for each in mine) else "·"
    numbers = []
    for each in differing:
        meant = known.why(each.server.name, each.road.name, step)
        told = meant or f"**Not meant: {each.server.name}, {step}: {_plain(each.differences[step])}**"
        notes.setdefault(told, {})[each.road.name] = None
        numbers.append(str(list(notes).index(told) + 1))
    return " ".join(dict.fromkeys(numbers))


def _roads(walked: list[Walked]) -> str:
    rows = []
    for server in dict.fromkeys(each.server for each in walked):
        cells = []
        for road in ROADS:
            one = next((each for each in walked if each.server == server and each.road == road), None)
            if one is None:
                cells.append("·")
                continue
            bad = [step for step in one.differences if not known.why(server.name, road.name, step)]
            cells.append(f"differs: {', '.join(bad)}" if bad else "same" if not one.differences else "as meant")
        rows.append([server.name, *cells])
    head = "### Servers by road\n\nThe transport behind the gateway, reached at `/mcp` or, where said, at `/sse`."
    return f"{head} *As meant*: it differs only in what the list above explains.\n\n" + _table(
        ["Server", *(r.name for r in ROADS)], rows
    )


def _clients(played: list[Played]) -> str:
    rows = []
    names = ["connect", *(name for name, _ in ALIKE)]
    for one in played:
        version = install.version(one.client.installed, one.client.package) if one.client.installed else "the system's"
        cells = []
        for name in names:
            offered = one.client.calls or name in ("connect", "list")
            cells.append(
                f"differs: {_plain(one.differences[name])}" if name in one.differences else "=" if offered else "·"
            )
        rows.append([f"{one.client.name} ({one.client.package} {version})", one.transport, *cells])
    count = len({one.client.name for one in played})
    head = f"### Clients by step\n\n{count} clients; `=`: the user sees the same as directly. `sse`: at `/sse`, before an SSE server."
    return head + "\n\n" + _table(["Client", "over", *names], rows)


def _refusals(played: list[Played]) -> str:
    rows = [
        [one.client.name, one.transport, _plain(one.denied), _plain(one.limited), ", ".join(one.broken) or "goes on"]
        for one in played
        if one.client.calls
    ]
    head = (
        "### What a refused client shows\n\nTo its user, or to the model that made the call; and whether the session goes on. "
        "A client of the modern era has no session and is refused with an error of the protocol, for which some frameworks put a "
        "sentence of their own; `SENTINEL_REFUSALS=tool-result` has them told in a tool's result (see protocol.md)."
    )
    return head + "\n\n" + _table(["Client", "over", "denied by a rule", "over a limit", "the session"], rows)


def _list(title: str, notes: dict[str, dict[str, None]]) -> str:
    lines = (f"{n}. {told} (on: {'; '.join(roads)})" for n, (told, roads) in enumerate(notes.items(), 1))
    return f"### {title}\n\n" + ("\n".join(lines) or "None.")


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _plain(text: str) -> str:
    """A text for one cell: one line, and nothing that is another at each run."""
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "…", " ".join(text.split()))
    text = re.sub(r"(127\.0\.0\.1|localhost):\d+", "…", text)
    return re.sub(r"\b\d+ s(econds)?\b", "N s", text)[:330]
