"""docs/architecture.md is right: its plan, its paths, its walk of a call; and the house keeps the rules that the page states."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.support import floor_plan
from tests.support.gateway import ROOT, Gateway
from tests.support.upstream import FakeUpstream

PAGE = floor_plan.PAGE.read_text()
PATH = re.compile(r"`((?:core|audit|policies|proxy|sentinel)/[\w/]*(?:\.py|/))`")
MOST_MODULES = 13
POLICY = """
roles: {admin: {allow: ["*"]}}
rate_limits: {limits: [{name: walk, requests: 1000, window_seconds: 60, upstream: fake}]}
"""


def modules() -> Iterator[tuple[str, Path]]:
    """Every production module, by its dotted name."""
    for package in floor_plan.PACKAGES:
        for place in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(place.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            if ".migrations" not in name:
                yield name, place


def test_the_floor_plan_is_that_of_the_code() -> None:
    assert floor_plan.written(PAGE) == PAGE, "run: python -m tests.support.floor_plan"


def test_every_path_on_the_page_is_there() -> None:
    named = PATH.findall(PAGE)
    assert len(named) > 60
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_no_room_is_crowded() -> None:
    crowded = {}
    for room in floor_plan.rooms():
        inside = [place for place in room.glob("*.py") if place.stem != "__init__"]
        if len(inside) > MOST_MODULES:
            crowded[str(room.relative_to(ROOT))] = len(inside)
    assert crowded == {}


def test_no_two_classes_share_a_name() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for name, place in modules():
        for node in ast.parse(place.read_text()).body:
            if isinstance(node, ast.ClassDef) and not (node.name == "Command" and ".management.commands." in name):
                found[node.name].append(name)
    assert {name: where for name, where in found.items() if len(where) > 1} == {}


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports for types count, and imports within functions."""
    known = dict(modules())
    imports: dict[str, set[str]] = {}
    for name, place in known.items():
        imports[name] = set()
        for node in ast.walk(ast.parse(place.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                imports[name] |= {f"{node.module}.{one.name}" for one in node.names} & known.keys() or (
                    {node.module} & known.keys()
                )
            elif isinstance(node, ast.Import):
                imports[name] |= {one.name for one in node.names} & known.keys()
    TopologicalSorter(imports).prepare()  # raises with the modules of a circle, if there is one


@pytest.fixture(scope="module")
def visited() -> list[str]:
    """The files that a plain call visits, in the order in which it first does."""
    with FakeUpstream() as fake, Gateway(workers=1) as gateway:
        gateway.add_upstream("fake", fake.url)
        gateway.apply_policy(POLICY)
        key = gateway.create_key("walker", role="admin")
        gateway.stop()
        told = gateway.home / "walk.json"
        walk = [sys.executable, "-m", "tests.support.walked", "fake", str(told)]
        # Its output is not read through a pipe: the database that it starts would keep one open.
        with gateway.log.open("ab") as log:
            done = subprocess.run(
                walk, cwd=ROOT, env=gateway.environment, input=key.key, text=True, stdout=log, stderr=log, timeout=90
            )
        assert done.returncode == 0, gateway.output()
        walked = json.loads(told.read_text())
    assert walked["status"] == 200
    files: list[str] = walked["visited"]
    return files


def walk() -> list[str]:
    """The files of the page's walk, as far as the worker's process goes; uvicorn's protocol comes before the application."""
    section = PAGE.partition("## The walk of one")[2].partition("And then,")[0]
    return [path for path in PATH.findall(section) if path != "sentinel/server/http_protocol.py"]


def test_the_walk_names_every_file_that_a_call_visits(visited: list[str]) -> None:
    assert sorted(set(visited) - set(walk())) == []
    assert sorted(set(walk()) - set(visited)) == []


def test_and_in_their_order(visited: list[str]) -> None:
    def but_metrics(
        paths: list[str],
    ) -> list[str]:  # they, and idle connections, are looked at now and then, by nobody's call
        return [path for path in paths if path in visited and "observability" not in path and "transports" not in path]

    assert but_metrics(walk()) == but_metrics(visited)
