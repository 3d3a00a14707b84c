"""Makes the fixture of an upgrade test: the state that the code of a given commit leaves behind after a busy hour and a kill -9.

    python -m tests.upgrade.make_fixture COMMIT

Writes tests/upgrade/COMMIT.tar.xz, which holds

    var/            SENTINEL_VAR as it stood after the kill (journal, secrets, limiter, metrics, the demonstration's keys), but
                    for the embedded server's folder and the sockets
    database.sql    the embedded database at that moment, as SQL: its data folder would be a hundred times as large
    log.ndjson      `audit export` of the old code, once it had drained what the kill left in the journal
    facts.json      the keys, what the old code's commands said, and how each call of tests/upgrade/history.py ended

Everything in it is a local demonstration's: its secrets open nothing but this fixture.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from http.client import HTTPException
from pathlib import Path
from typing import Any

from sentinel.postgres.server import binaries
from tests.support.gateway import ROOT, Gateway
from tests.support.upstream import hang, sse
from tests.support.wire import send
from tests.upgrade import history

HERE = Path(__file__).parent
LEFT_OUT = ("postgres", "run")  # the server's folder, and sockets
SEED = "3132333435363738393031323334353637383930"  # of the administrator's second factor
SECOND_FACTOR = f"""
from django.contrib.auth import get_user_model
from django_otp.plugins.otp_totp.models import TOTPDevice
TOTPDevice.objects.create(user=get_user_model().objects.get(username="admin"), key={SEED!r}, name="phone", confirmed=True)
"""


def make(commit: str, target: Path) -> None:
    """Check a commit out, let it live, kill it, and pack what it left."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as tree:
            tree.extractall(source, filter="data")
        Old = type("Old", (Gateway,), {"root": source})
        with history.crm() as fake, Old(demo=True, workers=2, **history.SETTINGS) as gateway:
            facts = live(gateway)
            facts |= {"commit": commit, "seed": SEED}
            leave(gateway, fake, facts)
            pack(target, gateway, facts)


def live(gateway: Gateway) -> dict[str, Any]:
    """A history with something of everything."""
    while "Stop with" not in (told := gateway.log.read_text()):
        time.sleep(0.1)
    keys = dict(re.findall(r"^ +(admin|user|readonly) +(mcps_live_\w+)$", told, re.M))
    password = re.findall(r"one-time password +(\S+)", told)[0]
    crm = f"http://{history.HOST}:{history.PORT}/mcp"
    gateway.add_upstream("crm", crm, "--header", f"X-Crm-Token={history.TOKEN}", "--header", "X-Team=env:TEAM")
    gateway.manage("upstreams", "add", "local", "--command", history.COMMAND, "--env", f"TOKEN={history.TOKEN}")
    gateway.commands(
        ["upstreams", "add", "held", "--url", crm, "--quarantine", "--dispatcher", "call_tool=name", "--check"],
        ["upstreams", "approve", "held", "list_customers"],
        ["upstreams", "add", "off", "--url", crm],
        ["upstreams", "disable", "off"],
        ["upstreams", "add", "gone", "--url", crm],
        ["upstreams", "remove", "gone"],
        ["audit", "redaction", "add", "name", "Employee number", "--label", "staff"],
        ["audit", "redaction", "add", "pattern", r"BDG-\d{6}", "--label", "badge"],
        ["audit", "redaction", "add", "personal", "email"],
    )
    gateway.apply_policy(history.POLICY % 50)
    gateway.apply_policy(history.POLICY % 100)
    options = {
        "clerk": {},
        "fenced": {"upstream": "local"},
        "elsewhere": {"network": "10.0.0.0/8"},
        "rotated": {},
        "revoked": {},
    }
    made = {
        name: gateway.create_key(name, "clerk" if name == "clerk" else "admin", **more)
        for name, more in options.items()
    }
    keys |= {name: key.key for name, key in made.items()}
    keys["auditor"] = gateway.create_key("auditor", administrative="auditor").key
    keys["before-rotation"] = keys["rotated"]
    keys["rotated"] = json.loads(gateway.manage("keys", "rotate", "rotated", "--json").stdout)["key"]
    history.call(gateway, keys, ("revoked-once", "revoked", "crm", "list_customers", {}))
    gateway.revoke_key(made["revoked"])
    gateway.manage("shell", "-c", SECOND_FACTOR)
    gateway.restart()  # a boot that ended in good order
    for key in ("admin", "readonly"):
        client = gateway.client(keys[key], "demo").initialize()
        assert "list_customers" in client.tools()
        client.call("delete_customer", {"customer_id": "3"}, "demo")
    modern = gateway.client(keys["admin"], "crm", era="modern")
    modern.ask("server/discover")
    modern.ask("resources/read", {"uri": "test://one"}, 2)
    modern.ask("prompts/get", {"name": "greet"}, 3)
    for wrong in (None, "mcps_live_" + "x" * 40, keys["revoked"], keys["before-rotation"]):
        for _ in range(3):
            assert gateway.client(wrong, "crm").call("list_customers").status == 401
    bearer = {"Authorization": f"Bearer {keys['admin']}"}
    assert send(f"{gateway.url}/mcp/crm", b'{"jsonrpc": "2.0", "id": 1, "id": 2}', bearer).status == 400
    gateway.client(keys["admin"], "off").call("list_customers")
    calls = {what[0]: history.call(gateway, keys, what).status for what in history.CALLS}
    limited = [history.call(gateway, keys, history.LIMITED).status for _ in range(4)]
    assert limited == [200, 200, 200, 429], (limited, calls)
    time.sleep(1)
    last = next(event for event in gateway.export() if history.is_of(event, "tool-error"))
    gateway.manage("audit", "erase-payload", last["id"], "--reason", "somebody asked")
    said = gateway.commands(
        ["upstreams", "list", "--json"],
        ["keys", "list", "--json"],
        ["policy", "export", "--json"],
        ["audit", "redaction", "list", "--json"],
    )
    names = ("upstreams", "keys", "policy", "redaction")
    return {
        "keys": keys,
        "password": password,
        "calls": calls,
        "erased": last["id"],
        "said": dict(zip(names, map(json.loads, said), strict=True)),
    }


def leave(gateway: Gateway, fake: Any, facts: dict[str, Any]) -> None:
    """Stop the drainer, let calls and acts go on, and kill everything in the middle of it."""
    keys = facts["keys"]
    time.sleep(1)
    assert gateway.process is not None
    processes = descendants(gateway.process.pid)
    drainer = next(pid for pid, command in processes.items() if "\0drain\0" in command)
    os.kill(drainer, signal.SIGSTOP)
    for number in range(12):
        who, tool = (("user", "list_customers"), ("readonly", "delete_customer"))[number % 2]
        history.call(gateway, keys, (f"undrained-{number}", who, "crm", tool, {"n": number}))
    for _ in range(100):  # more than leave an event each
        gateway.client("mcps_live_" + "y" * 40, "crm").call("list_customers")
    gateway.create_key("made-late", "user")
    fake.script(hang(), name="hang")
    fake.script(sse([{"jsonrpc": "2.0", "method": "notifications/message", "params": {}}], hold=60), name="stream")
    for upstream, tool in (("crm", "hang"), ("local", "hang"), ("crm", "stream")):
        what = (f"open-{upstream}-{tool}", "admin", upstream, tool, {})
        threading.Thread(target=quietly, args=(gateway, keys, what), daemon=True).start()
    time.sleep(2)
    for pid in (gateway.process.pid, *processes, *descendants(gateway.process.pid)):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    gateway.process.wait(10)


def quietly(gateway: Gateway, keys: dict[str, str], what: Any) -> None:
    """Make a call whose end is a kill."""
    try:
        history.call(gateway, keys, what)
    except (OSError, HTTPException):
        return


def descendants(pid: int) -> dict[int, str]:
    """The processes below one, with their commands; PostgreSQL is not among them."""
    found: dict[int, str] = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            name, command = (Path(f"/proc/{child}/{what}").read_text() for what in ("comm", "cmdline"))
            if name.strip() != "postgres":
                found |= {int(child): command, **descendants(int(child))}
        except FileNotFoundError:
            continue
    return found


def pack(target: Path, gateway: Gateway, facts: dict[str, Any]) -> None:
    """Pack the state as it is now; then let the old code say what it makes of it."""
    members = {f"var/{place.relative_to(gateway.var)}": place for place in sorted(gateway.var.rglob("*"))}
    packed = {
        name: place.read_bytes()
        for name, place in members.items()
        if name.split("/")[1] not in LEFT_OUT and place.is_file()
    }
    packed["database.sql"], stored = dump(gateway.var)
    log = gateway.export()
    facts["undrained"] = sorted({event["id"] for event in log} - stored)
    undrained = [event for event in log if event["id"] in facts["undrained"]]
    assert sum(event["outcome"] == "interrupted" for event in undrained) == 3
    assert any(event["count"] > 1 for event in undrained) and any(event["outcome"] == "changed" for event in undrained)
    packed["log.ndjson"] = "".join(json.dumps(event) + "\n" for event in log).encode()
    packed["facts.json"] = json.dumps(facts, indent=1).encode()
    for name, data in packed.items():
        for place in (b"/tmp/", b"/root/", b"/home/", os.fsencode(ROOT), os.fsencode(sys.prefix)):
            assert place not in data, f"{name} names a place of this machine: {place!r}"
    with tarfile.open(target, "w:xz", preset=9) as archive:
        for name, data in packed.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = len(data), 0o600, int(time.time())
            archive.addfile(member, io.BytesIO(data))
    print(f"{target}: {target.stat().st_size:,} bytes, {len(log)} events, {len(facts['undrained'])} of them undrained")


def dump(var: Path) -> tuple[bytes, set[str]]:
    """The embedded database, which outlived the kill, as statements that any client can execute; and the events it has."""
    pid_file = (var / "postgres" / "data" / "postmaster.pid").read_text().splitlines()
    place = {
        "PGHOST": pid_file[4],
        "PGPORT": pid_file[3],
        "PGUSER": "sentinel_super",
        "PGPASSWORD": (var / "secrets" / "postgres-sentinel_super").read_text().strip(),
        "PGDATABASE": "sentinel",
    }

    def told(program: str, *options: str) -> list[bytes]:
        command = [binaries().folder / program, *options]
        return subprocess.run(command, env=place, check=True, capture_output=True).stdout.splitlines(keepends=True)

    statements = told("pg_dump", "--inserts", "--rows-per-insert", "500", "--no-comments")
    events = told("psql", "--no-align", "--tuples-only", "--command", "SELECT id FROM audit_auditevent")
    # What is no statement but meant for psql; newer versions begin and end a dump so.
    kept = [line for line in statements if not line.startswith((b"\\restrict", b"\\unrestrict"))]
    return b"".join(kept), {line.decode().strip() for line in events}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("commit", help="whose code made the state")
    commit = parser.parse_args().commit
    make(commit, HERE / f"{commit}.tar.xz")


if __name__ == "__main__":
    main()
