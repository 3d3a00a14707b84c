"""What a command of a stdio upstream cannot reach, tried by one that wants to; each way alone, and all together."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from proxy.upstreams.transports.base import TransportLimits, UpstreamError, UpstreamRequest
from proxy.upstreams.transports.stdio import confine
from proxy.upstreams.transports.stdio.child import CommandLine
from proxy.upstreams.transports.stdio.transport import StdioTransport

SERVER = str(Path(__file__).parents[3] / "hostile_command.py")
LANDLOCK = confine.landlock_version()
ROOT = os.geteuid() == 0
READ = """
def reading(*places):
    import glob
    told = {}
    for place in places:
        for each in glob.glob(place, recursive=True, include_hidden=True) or [place]:
            try:
                told[each] = open(each, "rb").read(100000).decode("latin-1")
            except IsADirectoryError:
                pass
            except OSError as error:
                told[each] = "refused: " + error.strerror
    return told
"""


def mounts_work() -> bool:
    """Whether this user may make a mount namespace here."""
    flags = ["-m"] if ROOT else ["-Ur", "-m"]
    unshare = shutil.which("unshare")
    return bool(unshare) and subprocess.run([unshare, *flags, "mount", "-t", "tmpfs", "x", "/mnt"], capture_output=True).returncode == 0  # fmt: skip


MOUNTS = mounts_work()
WAYS = [("mounts", "landlock", "user"), ("landlock",), ("mounts",), ()]


@pytest.fixture
def state(tmp_path):
    """A state folder as the gateway's is."""
    folder = tmp_path / "gateway" / "var"
    (folder / "secrets").mkdir(parents=True, mode=0o700)
    folder.chmod(0o700)
    (folder / "secrets" / "secret-key").write_text("TOP SECRET")
    (folder / "secrets" / "secret-key").chmod(0o600)
    (folder.parent / "beside.txt").write_text("not secret")
    return folder


@pytest.fixture
async def hostile(state):
    """Start the command in the ways given; what it is told to do, it does as far as it can."""
    started = []

    def make(ways=confine.WAYS, **options):
        command = CommandLine((sys.executable, SERVER), state=str(state), ways=tuple(ways), **options)
        transport = StdioTransport(command, limits=TransportLimits(first_byte=30, idle=30, connect=3))
        started.append(transport)

        async def act(do: str):
            code = READ + textwrap.dedent(do)
            message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "python", "arguments": {"do": code}}}  # fmt: skip
            response = await transport.send(UpstreamRequest(b"POST", [], json.dumps(message).encode()))
            return json.loads(json.loads(await response.body(1 << 30))["result"]["content"][0]["text"])

        act.transport = transport
        return act

    yield make
    for transport in started:
        await transport.close()


def closed(ways) -> bool:
    """Whether the state folder is closed in these ways, as THREAT_MODEL.md says."""
    return ("mounts" in ways and MOUNTS) or ("landlock" in ways and LANDLOCK > 0)


@pytest.mark.parametrize("ways", WAYS, ids=lambda ways: "+".join(ways) or "none")
async def test_the_state_folder_is_closed_and_what_lies_beside_it_is_not(hostile, state, ways):
    act = hostile(ways)
    told = await act(f"found = reading({str(state)!r} + '/**', {str(state / 'secrets' / 'secret-key')!r})")
    assert ("TOP SECRET" in told.values()) == (not closed(ways)), told
    # by another name, through a link of its own, through the gateway's processes, or by undoing what was done
    told = await act(f"""
        import ctypes, os
        libc = ctypes.CDLL(None)
        home = os.environ["HOME"]
        libc.umount2({str(state)!r}.encode(), 2), libc.setuid(0), libc.unshare(0x10020000)
        libc.umount2({str(state)!r}.encode(), 2)
        try:
            os.symlink({str(state)!r}, {str(state.parent / "data")!r})
        except OSError:
            pass
        key = "/secrets/secret-key"
        found = reading({str(state.parent / "data")!r} + key, "/proc/{os.getpid()}/root{state}" + key, "/proc/*/cwd/../var" + key,
                        "/proc/self/root{state}" + key, "{state.parent}/../gateway/var" + key)
    """)
    assert ("TOP SECRET" in told.values()) == (not closed(ways)), told
    told = await act(f"found = reading({str(state.parent / 'beside.txt')!r})")
    assert list(told.values()) == ["not secret"]


@pytest.mark.parametrize("ways", WAYS[:3], ids=lambda ways: "+".join(ways))
async def test_the_state_folder_cannot_be_moved_from_under_its_cover(hostile, state, ways, tmp_path):
    if not closed(ways):
        pytest.skip("nothing closes it here")
    told = await hostile(ways)(f"""
        import os
        found = {{}}
        for above in ({str(state)!r}, {str(state.parent)!r}, {str(tmp_path)!r}):
            try:
                os.rename(above, above + "-moved")
                found[above] = "moved"
            except OSError as error:
                found[above] = "refused: " + error.strerror
    """)
    assert {text[:8] for text in told.values()} == {"refused:"}, told
    assert (state / "secrets").is_dir()
    # The next command, too, finds nothing there.
    told = await hostile(ways)(f"found = reading({str(tmp_path)!r} + '/**')")
    assert "TOP SECRET" not in told.values()


@pytest.mark.parametrize("ways", WAYS[:2], ids=lambda ways: "+".join(ways))
async def test_no_other_process_can_be_read_or_signalled(hostile, ways):
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env={"SECRET": "TOP SECRET"})
    try:
        told = await hostile(ways)(f"""
            import os, signal
            found = reading("/proc/{victim.pid}/environ", "/proc/{victim.pid}/mem", "/proc/{victim.pid}/maps",
                            "/proc/{os.getpid()}/environ", "/proc/*/environ")
            found = {{place: text for place, text in found.items() if str(os.getpid()) not in place and "self" not in place}}
            for other in ({victim.pid}, {os.getpid()}):
                try:
                    os.kill(other, signal.SIGWINCH)
                    found[f"kill {{other}}"] = "TOP SECRET"
                except OSError as error:
                    found[f"kill {{other}}"] = "refused: " + error.strerror
        """)
        if LANDLOCK < 6:
            told = {place: text for place, text in told.items() if not place.startswith("kill")}
        assert not LANDLOCK or {text[:8] for text in told.values()} == {"refused:"}, told
    finally:
        victim.kill()
        victim.wait()


async def test_the_gateways_program_cannot_be_changed(hostile):
    place = Path(__file__).parents[5] / "proxy" / "upstreams" / "vault.py"
    told = await hostile()(f"""
        import os
        found = []
        for path in ({str(place)!r}, os.path.relpath({str(place)!r}), {sys.prefix!r} + "/pyvenv.cfg"):
            try:
                open(path, "a").close()
                found.append(path)
            except OSError:
                pass
    """)
    assert told == [] or not MOUNTS


@pytest.mark.skipif(not ROOT, reason="only root has what is taken here; test_the_state_folder… has the rest")
@pytest.mark.parametrize("ways", WAYS[:2], ids=lambda ways: "+".join(ways))
async def test_a_command_of_root_has_nothing_of_its_powers(hostile, ways):
    told = await hostile(ways)("""
        import os
        status = open("/proc/self/status").read()
        found = {"capabilities": status.split("CapEff:")[1].split()[0] + status.split("CapBnd:")[1].split()[0]}
        for path in ("/etc/sentinel-test", "/usr/sentinel-test", "/proc/sys/kernel/core_pattern"):
            try:
                open(path, "w").close()
                found[path] = "written"
            except OSError as error:
                found[path] = "refused"
        for name in os.listdir("/sys/class/block")[:3]:
            try:
                open("/dev/" + name, "rb").read(1)
                found[name] = "read"
            except OSError:
                found[name] = "refused"
        open("/dev/null", "w").write("x")
        found["random"] = len(open("/dev/urandom", "rb").read(4))
    """)
    capabilities, random = told.pop("capabilities"), told.pop("random")
    assert set(capabilities) == {"0"}
    assert random == 4
    assert set(told.values()) == {"refused"} or not LANDLOCK, told


@pytest.mark.skipif(not ROOT, reason="only root can be another user")
async def test_without_landlock_a_command_of_root_is_another_user(hostile, state):
    """Where that user cannot reach the program, it says so: nothing starts with root's rights."""
    act = hostile(("user",))
    try:
        told = await act(f"import os; found = [os.getuid(), os.getgid(), os.getgroups(), reading({str(state)!r} + '/secrets/secret-key', '/proc/{os.getpid()}/environ')]")  # fmt: skip
    except UpstreamError as error:
        assert "Permission denied" in error.said
    else:
        assert told[:3] == [confine.OTHER_USER, confine.OTHER_USER, []]
        assert {text[:8] for text in told[3].values()} == {"refused:"}


@pytest.mark.parametrize("ways", WAYS, ids=lambda ways: "+".join(ways) or "none")
async def test_an_ordinary_server_can_work(hostile, state, ways, tmp_path, monkeypatch):
    """It has a home and a place for temporary files, makes files, moves them between folders, starts programs."""
    monkeypatch.setenv("HOME", str(state))  # as in the image
    folder = tmp_path / "work"
    (folder / "other").mkdir(parents=True)
    told = await hostile(ways, directory=str(folder))("""
        import os, subprocess, tempfile
        home = os.path.join(os.environ["HOME"], ".cache")
        os.makedirs(home, exist_ok=True)
        with open(os.path.join(home, "file"), "w") as file:
            file.write("mine")
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"x")
        open("made", "w").close()
        os.replace("made", "other/moved")
        os.replace("other/moved", os.path.join(home, "moved")) if False else None
        found = [os.listdir("other"), subprocess.run(["sh", "-c", "cat " + home + "/file"], capture_output=True, text=True).stdout]
    """)
    assert told == [["moved"], "mine"], told
    if ways:
        assert (state / "commands" / ".cache" / "file").read_text() == "mine"


async def test_a_way_that_fails_starts_nothing(hostile, monkeypatch, tmp_path):
    act = hostile(("landlock",), environment={})
    monkeypatch.setattr("proxy.upstreams.transports.stdio.child._LAUNCHER", str(tmp_path / "launch.py"))
    launcher = Path(confine.__file__).with_name("launch.py").read_text()
    (tmp_path / "launch.py").write_text(launcher)
    (tmp_path / "confine.py").write_text("def confine(*_):\n    raise OSError(1, 'Operation not permitted')\n")
    with pytest.raises(UpstreamError) as refused:
        await act("found = 1")
    assert "cannot take its rights" in refused.value.said


# -- everything it started ends with it

ESCAPE = """
    import os, signal, time, resource
    read, write = os.pipe()
    if not os.fork():
        os.setsid()
        {before}
        if not os.fork():
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            os.write(write, str(os.getpid()).encode())
            null = os.open("/dev/null", os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(null, descriptor)
            {inside}
            time.sleep(300)
        os._exit(0)
    found = int(os.read(read, 100))
"""
FORKS = "[os.fork() for _ in range(5)]"
LOWER = "resource.setrlimit(resource.RLIMIT_RTTIME, (12345, 12345))"


@pytest.mark.parametrize(
    ("before", "inside"),
    [("pass", "pass"), ("pass", FORKS), (LOWER, "pass"), ("os.environ.clear()", "os.setsid; os.chdir('/')")],
)
async def test_what_left_the_group_ends_with_the_command_and_nothing_else_does(hostile, before, inside):
    bystander = subprocess.Popen(["sleep", "60"], start_new_session=True)
    act, other = hostile(), hostile()
    try:
        keeps = await other(ESCAPE.format(before="pass", inside="pass"))
        await act("found = 1")
        escaped = await act(ESCAPE.format(before=before, inside=inside))
        while psutil.Process(escaped).ppid() != os.getpid():  # its parent is about to end
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
        of_its_own = {escaped, *(process.pid for process in psutil.Process(escaped).children(recursive=True))}
        assert escaped in of_its_own
        await act.transport.close()
        assert not [pid for pid in of_its_own if psutil.pid_exists(pid)]
        assert psutil.pid_exists(keeps)
        assert (await other("found = 2")) == 2
        assert bystander.poll() is None
        await other.transport.close()
        assert not psutil.pid_exists(keeps)
    finally:
        bystander.kill()
        bystander.wait()


async def test_what_left_the_group_ends_when_the_command_ends_by_itself(hostile):
    act = hostile()
    escaped = await act(ESCAPE.format(before="pass", inside="pass"))
    with pytest.raises(UpstreamError):
        await act("import os; os._exit(0)")
    until = time.monotonic() + 5
    while psutil.pid_exists(escaped):
        assert time.monotonic() < until
        await asyncio.sleep(0.05)
