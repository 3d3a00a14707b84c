"""How much of a call's CPU is the audit's: a run of its own, in which the worker is looked at every two milliseconds.

Counted as the audit's are whatever runs in `audit/` or is called from there, the gathering of an event's values
(`proxy/outcomes.py`), the journal's threads, and the drainer as a whole.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from bench import parts

SAMPLER = Path(__file__).resolve().parent / "sampler"
TICKS = os.sysconf("SC_CLK_TCK")


def environment(folder: Path) -> dict[str, str]:
    """What the gateway's processes are told, so that its worker is looked at."""
    paths = (str(SAMPLER), os.environ.get("PYTHONPATH", ""))
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "BENCH_SAMPLES": str(folder / "samples")}


def child_named(parent: int, word: str) -> int:
    """The process that a supervisor has started and that has this word in its title."""
    for child in parts.children_of(parent):
        if word in Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode():
            return child
    raise LookupError(f"no process named {word!r}")


def seconds(stat: Path) -> float:
    """The CPU that a process or a thread has taken."""
    fields = stat.read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def measure(
    program: Path, gateway: parts.PinnedGateway, request: Path, core: int, folder: Path, span: float
) -> tuple[float, float, float]:
    """Of the CPU of worker and drainer under load: the audit's share, and in it the journal's threads and the drainer."""
    assert gateway.process is not None
    worker = child_named(gateway.process.pid, " worker ")
    drainer = child_named(gateway.process.pid, " drain ")

    def now() -> tuple[float, float, float, int, int]:
        of_audit, of_all = struct.unpack("<2q", (folder / "samples").read_bytes())
        whole, main = Path(f"/proc/{worker}/stat"), Path(f"/proc/{worker}/task/{worker}/stat")
        return seconds(whole), seconds(main), seconds(Path(f"/proc/{drainer}/stat")), of_audit, of_all

    parts.measure(program, gateway.port, request, 32, 1, core, [])  # what is done once
    before = now()
    parts.measure(program, gateway.port, request, 32, span, core, [])
    whole, main, drained, of_audit, of_all = (after - earlier for after, earlier in zip(now(), before, strict=True))
    total, threads = whole + drained, whole - main
    return (main * of_audit / max(of_all, 1) + threads + drained) / total, threads / total, drained / total
