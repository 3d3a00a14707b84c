"""A process of the gateway shows its environment and memory to no other process of its user, and no secret to anybody."""

from __future__ import annotations

import subprocess
import sys

import pytest

from core.conf.settings import PROJECT

LOOK = """
import ctypes, os, sys, time
from core import processes
if os.geteuid() == 0:  # somebody who is not root: as such the gateway is to be run
    os.setgroups([]), os.setgid(64189), os.setuid(64189)
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # as any program that was just started
if sys.argv[1] == "closed":
    processes.close()
look = os.fork()
if not look:
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
    for name in ("environ", "maps", "mem", "fd"):
        try:
            place = f"/proc/{os.getppid()}/{name}"
            os.listdir(place) if name == "fd" else open(place, "rb").read(0 if name == "mem" else 1)
            print("seen", name)
        except OSError:
            pass
    os._exit(0 if sys.stdout.flush() is None else 0)
os.waitpid(look, 0)
"""
TAKE = """
import os, pathlib, subprocess, sys
import setproctitle  # moves the environment's block
from core.conf import environ
environ.take(["SENTINEL_SECRET_KEY", "REDIS_URL", "NOT_SET"])
setproctitle.setproctitle("short")
shown = pathlib.Path("/proc/self/environ").read_bytes() + str(dict(os.environ)).encode()
child = subprocess.run(["env"], capture_output=True).stdout
print(b"TOP" in shown, b"TOP" in child, b"SENTINEL_SECRET_KEYS=other" in shown, b"SENTINEL_SECRET_KEYS=other" in child)
print(environ.whole()["SENTINEL_SECRET_KEY"], environ.whole()["SENTINEL_SECRET_KEYS"])
"""


def run(program: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=PROJECT, env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return done.stdout


def test_only_root_can_look_into_a_process():
    assert "seen environ" in run(LOOK, "open")  # else nothing is shown here
    assert run(LOOK, "closed") == ""


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
def test_secrets_leave_the_environment_and_the_block_that_the_kernel_shows():
    told = run(TAKE, A="1", SENTINEL_SECRET_KEY="TOP one", REDIS_URL="TOP=two", SENTINEL_SECRET_KEYS="other", Z="2")
    first, second = told.splitlines()
    assert first.split()[:2] == ["False", "False"]
    assert first.split()[3] == "True"
    assert second == "TOP one other"
