"""Start a PostgreSQL program as a user that may run it: never root. A program of its own, without Django.

    python -I -S launcher.py MODE UID GID FOLDER TREES LOG -- PROGRAM ARGUMENT...

MODE says how a process of root gets to its files as somebody else:
  direct   no change: we are not root
  uid      set the user; the way to the files is open to it
  mount    the same, in a mount namespace of its own: a folder on the way that is closed to others (a 0700 home) is
           covered there by an empty one, in which only our own folders are mounted
  userns   a user namespace, in which root's own files belong to somebody who is not root

TREES are the folders of the programs, separated by colons. LOG is a file for a server that stays (the launcher returns at once), or "-" for a program to wait for.
Exit status 97 means that this mode cannot work here; the reason is on stderr.
"""

import ctypes
import os
import sys

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
PR_SET_NO_NEW_PRIVS = 38
UNFIT = 97


def _call(name: str, *arguments: object) -> None:
    function = getattr(ctypes.CDLL(None, use_errno=True), name)
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    encode = os.fsencode
    _call(
        "mount", encode(source), encode(target), kind and kind.encode(), ctypes.c_ulong(flags), data and data.encode()
    )


def uncover(folders: list[str]) -> None:
    """Make the folders reachable for everybody in a mount namespace of our own, and nothing else that was closed."""
    _call("unshare", CLONE_NEWNS)
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    held = {folder: os.open(folder, os.O_PATH | os.O_DIRECTORY) for folder in folders}
    for folder, descriptor in held.items():
        parts = folder.split("/")[1:]
        hidden = False
        for depth in range(1, len(parts)):
            parent = "/" + "/".join(parts[:depth])
            if os.path.isdir(parent) and not os.stat(parent).st_mode & 0o001:
                _mount("tmpfs", parent, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=64k")
        if not os.path.isdir(folder):
            hidden = True
            os.makedirs(folder, mode=0o755)
        if hidden or os.stat(folder) != os.stat(descriptor):
            _mount(f"/proc/self/fd/{descriptor}", folder, None, MS_BIND | MS_REC)
    for descriptor in held.values():
        os.close(descriptor)


def become(mode: str, uid: int, gid: int, folders: list[str]) -> None:
    """Change to the user the program may run as."""
    if mode == "mount":
        uncover(folders)
    if mode in ("uid", "mount"):
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    elif mode == "userns":
        outer_uid, outer_gid = os.geteuid(), os.getegid()
        _call("unshare", CLONE_NEWUSER)
        for name, line in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {outer_uid} 1"),
            ("gid_map", f"{gid} {outer_gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(line)
    _call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def main() -> None:
    mode, uid, gid, folder, trees, log = sys.argv[1:7]
    command = sys.argv[8:]
    os.umask(0o022)
    try:
        become(mode, int(uid), int(gid), [*filter(None, trees.split(os.pathsep)), folder])
        os.umask(0o077)
        os.chdir(folder)
        if not os.access(command[0], os.X_OK) or not os.access(folder, os.W_OK):
            raise PermissionError(f"{command[0]} or {folder} is out of reach")
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(UNFIT)
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC", "HOME": folder}
    if log == "-":
        os.execve(command[0], command, environment)  # noqa: S606
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    if os.fork():
        os._exit(0)  # the server is nobody's child: it may outlive whoever started it
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.execve(command[0], command, environment)  # noqa: S606


if __name__ == "__main__":
    main()
