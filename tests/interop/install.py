"""What the harness runs, installed from the package indexes: exact versions with hashes, each set in a folder of its own.

`locks/NAME.in` and `locks/NAME.txt` are a Python environment, `locks/NAME/package.json` and its lock file a folder of Node's.
Both are made once below the cache of the tests, and again when their lock file changes. `make interop ARGS=lock` writes the
lock files anew.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from tests.support import clients

LOCKS = Path(__file__).resolve().parent / "locks"
#: how long one set may take to install
BOUND = 600


def python(name: str) -> Path:
    """The interpreter of an environment."""
    folder = _installed(name, LOCKS / f"{name}.txt", _make_environment)
    return folder / "bin" / "python"


def program(name: str, command: str) -> Path:
    """A command that a package of an environment brought."""
    return python(name).with_name(command)


def node(name: str) -> Path:
    """A folder with `node_modules`."""
    return _installed(name, LOCKS / name / "package-lock.json", _make_node_modules)


def entry(name: str, package: str, command: str | None = None) -> list[str]:
    """How to start what a package of a Node folder offers as a command."""
    folder = node(name) / "node_modules" / package
    offered = json.loads((folder / "package.json").read_text())["bin"]
    path = offered if isinstance(offered, str) else offered[command or next(iter(offered))]
    return [str(clients.node()), str(folder / path)]


def version(name: str, package: str) -> str:
    """The version of a package that a lock file names."""
    if (LOCKS / f"{name}.txt").exists():
        wanted = re.sub(r"[-_.]+", "-", package).lower()  # as a lock file spells it
        for line in (LOCKS / f"{name}.txt").read_text().splitlines():
            if line.startswith(f"{wanted}=="):
                return line.split("==")[1].split()[0].rstrip("\\")
        raise LookupError(f"{package} is not in {name}.txt")
    locked = json.loads((LOCKS / name / "package-lock.json").read_text())
    return str(locked["packages"][f"node_modules/{package}"]["version"])


def one(name: str) -> None:
    """Install a set, unless it is there already."""
    (python if (LOCKS / f"{name}.txt").exists() else node)(name)


def lock() -> None:
    """Write every lock file anew; no address of an index gets into them."""
    for source in sorted(LOCKS.glob("*.in")):
        flags = ["--generate-hashes", "--no-emit-index-url", "--no-emit-find-links", "--no-annotate", "--no-header"]
        target = ["--python-version", "3.11", source.name, "-o", source.with_suffix(".txt").name]
        _run([sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--upgrade", *flags, *target], LOCKS)
    for folder in sorted(path.parent for path in LOCKS.glob("*/package.json")):
        (folder / "package-lock.json").unlink(missing_ok=True)
        _npm("install", "--package-lock-only", "--omit-lockfile-registry-resolved", cwd=folder)


def _installed(name: str, lock_file: Path, make: Callable[[Path, Path], None]) -> Path:
    folder = clients.CACHE / "interop" / name
    wanted = sha256(lock_file.read_bytes()).hexdigest()
    stamp = folder / "complete"
    with clients.locked(f"interop-{name}"):
        if not stamp.exists() or stamp.read_text() != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            make(folder, lock_file)
            stamp.write_text(wanted)
    return folder


def _make_environment(folder: Path, lock_file: Path) -> None:
    uv = [sys.executable, "-m", "uv"]
    _run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder], folder.parent)
    flags = ["--quiet", "--require-hashes", "--no-deps", "--python", str(folder / "bin" / "python")]
    _run([*uv, "pip", "install", *flags, "-r", lock_file], folder)


def _make_node_modules(folder: Path, lock_file: Path) -> None:
    for file in ("package.json", "package-lock.json"):
        shutil.copyfile(lock_file.parent / file, folder / file)
    _npm("install", cwd=folder)  # not `ci`, which refuses what optional packages of other systems leave out


def _npm(*arguments: str, cwd: Path) -> None:
    node_itself = clients.node()
    npm = node_itself.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    _run([node_itself, npm, *arguments, *flags], cwd)


def _run(arguments: list[object], cwd: Path) -> None:
    words = list(map(str, arguments))
    done = subprocess.run(
        words,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=BOUND * clients.PATIENCE,
        env=dict(os.environ),
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} failed: {done.stderr[:2000] or done.stdout[-2000:]}")
