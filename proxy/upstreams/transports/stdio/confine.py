"""Take from a process, for good, what a stdio upstream's command has no business with. Used by launch.py; without packages.

The command is somebody else's program under the gateway's user. What it must not reach: the state folder (secrets, journal,
sockets), the memory and environment of the gateway's processes, and, where that user is root, what makes root. The ways,
each of which is taken where the kernel and the surroundings (containers, systemd) let it:

  mounts    a mount namespace in which the state folder is empty, and the gateway's program cannot be written
  landlock  no other process can be traced (which is how /proc shows environments and memory) or signalled; without
            mounts it also closes the state folder: nothing new can then be made in the folders right above it
  user      for root, and without Landlock: another user, to whom the state folder and the gateway's processes are closed

A root that keeps its number has no capabilities, and writes neither to the system's folders nor to devices.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MOUNTS, LANDLOCK, USER = WAYS = ("mounts", "landlock", "user")
#: the one folder of the state folder that commands see: their home, where the usual one lies within it
HOME = "commands"
#: who commands are when root may not be: nobody's number, and not PostgreSQL's
OTHER_USER = 64190

_libc = ctypes.CDLL(None, use_errno=True)
_NEWNS, _NEWUSER = 0x00020000, 0x10000000
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND, _REC, _SLAVE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 19
_NO_NEW_PRIVS, _CAPBSET_DROP, _CAP_AMBIENT, _AMBIENT_CLEAR = 38, 24, 47, 4
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_READ_DIR, _ON_FILES = 1 << 3, 0b1100_0000_0000_0111  # of files: execute, write, read, truncate, ioctl
_WITHOUT_WRITING = 0b1000_0000_0000_1101  # execute, read files and folders, ioctl
_SIGNAL, _MAKE_SYM, _REFER = 2, 1 << 12, 1 << 13

_SYSTEM = (
    "/bin",
    "/boot",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/opt",
    "/proc",
    "/sbin",
    "/sys",
    "/usr",
    "/var/spool",
)
_DEVICES = (
    "null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "mqueue", "fd", "stdin", "stdout", "stderr"
)  # fmt: skip


def confine(state: str, program: Sequence[str], ways: Iterable[str] = WAYS) -> set[str]:
    """Close the state folder (and all else) to this process and its children; tell by which ways."""
    ways = set(ways)
    _call(_libc.prctl, _NO_NEW_PRIVS, 1, 0, 0, 0)
    state = os.path.realpath(state)
    root = os.geteuid() == 0
    version = landlock_version() if LANDLOCK in ways else 0
    taken = set()
    if MOUNTS in ways and _cover(state, [os.path.realpath(place) for place in program]):
        taken.add(MOUNTS)
    if root:
        if not version and USER in ways:
            _become_other()
            taken.add(USER)
        _drop_capabilities()
    if version:
        _restrict(version, state if MOUNTS not in taken else "", root)
        taken.add(LANDLOCK)
    _find_home(state, taken)
    return taken


def landlock_version() -> int:
    """Give the version of Landlock's interface; 0 where the kernel has it not, or not switched on."""
    if sys.platform != "linux":
        return 0
    version: int = _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    return max(0, version)


def _call(function: Any, *arguments: Any) -> int:
    result: int = function(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


# -- mounts


def _cover(state: str, program: Sequence[str]) -> bool:
    """Lay an empty folder over the state folder, and keep the program from being written; False where that may not be."""
    if os.geteuid() == 0:
        return _covered(state, program)
    # A user namespace that may be made, but not used, would stay with the command: tried in a process of its own first.
    probe = os.fork()
    if not probe:
        os._exit(not _covered(state, program))
    return os.waitpid(probe, 0)[1] == 0 and _covered(state, program)


def _covered(state: str, program: Sequence[str]) -> bool:
    user, group = os.geteuid(), os.getegid()
    home = os.path.join(state, HOME)
    try:
        if user == 0:
            _call(_libc.unshare, _NEWNS)
        else:
            _call(_libc.unshare, _NEWNS | _NEWUSER)
            for name, line in (
                ("setgroups", "deny"),
                ("uid_map", f"{user} {user} 1"),
                ("gid_map", f"{group} {group} 1"),
            ):
                with open(f"/proc/self/{name}", "w") as file:
                    file.write(line)
        _mount("none", "/", "", _REC | _SLAVE)
        kept = os.open(home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if os.path.isdir(home) else -1
        # What something is mounted on cannot be renamed: else whoever may write above the state folder could move it away,
        # and the next command would find it where nothing covers it.
        for place in _above(state):
            _mount(place, place, "", _BIND | _REC)
        for place in program:
            _mount(place, place, "", _BIND | _REC)
            held = os.statvfs(place).f_flag & (_NOSUID | _NODEV | _NOEXEC)  # to be said again, or it is refused
            _mount("none", place, "", _REMOUNT | _BIND | _RDONLY | held)
        _mount("none", state, "tmpfs", _NOSUID | _NODEV, "mode=700,size=64k")
        if kept >= 0:
            os.mkdir(home, 0o700)
            _mount(f"/proc/self/fd/{kept}", home, "", _BIND | _REC)
            os.close(kept)
    except OSError:
        return False
    try:
        os.chdir(os.getcwd())  # by its path: where we are is still the folder that lies below
    except OSError:
        os.chdir("/")
    return True


def _above(place: str) -> list[str]:
    """Name the folders above a place, the outermost first, without the root."""
    found: list[str] = []
    while (place := os.path.dirname(place)) not in ("/", ""):
        found.insert(0, place)
    return found


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    _call(
        _libc.mount, os.fsencode(source), os.fsencode(target), kind.encode() or None, ctypes.c_ulong(flags),
        data.encode() or None,
    )  # fmt: skip


# -- root


def _become_other() -> None:
    """Be another user: the state folder is its owner's alone, and so are the gateway's processes."""
    os.setgroups([])
    os.setgid(OTHER_USER)
    os.setuid(OTHER_USER)


def _drop_capabilities() -> None:
    """Keep none, and get none back by executing something."""
    for number in range(64):
        _libc.prctl(_CAPBSET_DROP, number, 0, 0, 0)
    _libc.prctl(_CAP_AMBIENT, _AMBIENT_CLEAR, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    _call(_libc.capset, header, (ctypes.c_uint32 * 6)())


# -- Landlock


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def _restrict(version: int, state: str, root: bool) -> None:
    """Enter a domain of our own, in which `state` is closed, and for root the system is not written to."""
    every = (1 << 13 + (version >= 2) + (version >= 3) + (version >= 5)) - 1
    special: dict[str, int] = {}
    if root:
        special |= dict.fromkeys(_SYSTEM, _WITHOUT_WRITING & every)
        special["/dev"] = 0
        special |= {f"/dev/{name}": every for name in _DEVICES}
    if state:
        special[state] = 0
        special[os.path.join(state, HOME)] = every
    handled = every if special else 0
    if not handled and version < 6:  # it must handle something: moving between folders (else links), granted everywhere
        handled = _REFER if version >= 2 else _MAKE_SYM
    scoped = _SIGNAL if version >= 6 else 0
    size = ctypes.c_size_t(24 if version >= 6 else 16 if version >= 4 else 8)
    ruleset = _call(_libc.syscall, _CREATE_RULESET, ctypes.byref(_Ruleset(handled, 0, scoped)), size, 0)
    try:
        if special:
            _grant_around(ruleset, "/", every, special)
        elif handled:
            _grant(ruleset, "/", handled)
        _call(_libc.syscall, _RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _grant_around(ruleset: int, folder: str, rights: int, special: Mapping[str, int]) -> None:
    """Grant rights to everything in a folder, but to the special places what stands with them.

    Rights hold for all that lies beneath, so a folder with a special place in it gets none but to be listed.
    """
    _grant(ruleset, folder, rights & _READ_DIR)
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        place = os.path.join(folder, name)
        here = special.get(place, rights)
        if any(other.startswith(place + "/") for other in special):
            _grant_around(ruleset, place, here, special)
        elif here:
            _grant(ruleset, place, here)


def _grant(ruleset: int, place: str, rights: int) -> None:
    try:
        # a symbolic link grants nothing: what it leads to has a rule of its own
        descriptor = os.open(place, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISLNK(mode):
            return
        rule = _Beneath(rights if stat.S_ISDIR(mode) else rights & _ON_FILES, descriptor)
        if rule.allowed:
            _call(_libc.syscall, _ADD_RULE, ruleset, 1, ctypes.byref(rule), 0)
    finally:
        os.close(descriptor)


# -- a home


def _find_home(state: str, taken: set[str]) -> None:
    """Give the command another home and place for temporary files, where the usual one cannot be used now."""
    own = os.path.join(state, HOME)
    if USER in taken or not os.path.isdir(own):
        return
    for name, usual in (("HOME", ""), ("TMPDIR", "/tmp")):  # noqa: S108 - the system's own
        place = os.path.realpath(os.environ.get(name) or usual or own)
        within = place == state or place.startswith(state + "/")
        above = MOUNTS not in taken and LANDLOCK in taken and state.startswith(place.rstrip("/") + "/")
        if within or above:
            os.environ[name] = own
