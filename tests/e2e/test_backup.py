"""`backup` and `restore` as an operator meets them; that nothing is lost or doubled under load is `make chaos`'s to show."""

from __future__ import annotations

import json
import stat
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from sentinel.backup import UNFINISHED
from tests.support.gateway import Gateway, Key
from tests.support.upstream import FakeUpstream

pytestmark = pytest.mark.timeout(400)
GIVEN = {
    "SENTINEL_SECRET_KEY": "6f1c0b9a7e5d4c3f2a1b8e9d7c6f5a4b3c2d1e0f",
    "SENTINEL_KEY_PEPPERS": "1:8f3a1c5e7b9d2f4a6c8e0b1d3f5a7c9e",
    "SENTINEL_REDACTION_KEY": "3c5e7a9b1d2f4c6e8a0b3d5f7a9c1e2f",
    "SENTINEL_DATA_KEY": "a1c3e5f7092b4d6f8a0c2e4f6b8d0a1c3e5f7092b4d6f8a0c2e4f6b8d0a1c3e5",
}
SECRET = "hunter2-and-more"  # what a call carries


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Key, Path, dict[str, str]]]:
    """A gateway that was given its secrets, a key of it, a backup, and what its log says of one call."""
    file = tmp_path_factory.mktemp("backup") / "all.backup"
    with FakeUpstream() as fake, Gateway(workers=1, **GIVEN) as gateway:
        gateway.add_upstream("fake", fake.url)
        key = gateway.create_key("kept", "admin")
        client = gateway.client(key)
        since = gateway.now()
        until = time.monotonic() + 20
        while client.call("public.echo", {"password": SECRET}).status != 200:
            assert time.monotonic() < until
            time.sleep(0.1)
        event = gateway.event(since, outcome="allowed")
        said = gateway.manage("backup", str(file))
        assert all(name in said.stdout for name in GIVEN)  # they are not in it, and have to be kept as well
        yield gateway, key, file, event


def refused(done: CompletedProcess[str]) -> str:
    """What a command that was refused says: one line, and no traceback."""
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    (line,) = done.stderr.strip().splitlines()
    return line


def new(**environment: str) -> Gateway:
    """An installation that is not there yet."""
    return Gateway(workers=1, **environment)


def test_what_is_restored_goes_on(made: tuple[Gateway, Key, Path, dict[str, str]]) -> None:
    gateway, key, file, event = made
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "stop it first" in refused(gateway.manage("restore", str(file), check=False))
    assert "is not a file" in refused(gateway.manage("backup", str(file.parent), check=False))
    assert "is not a file" in refused(gateway.manage("backup", "/dev/null", check=False))
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    told = [item["method"] for item in gateway.export() if item["method"].startswith("admin.backup")]
    assert told == ["admin.backup.made"]

    other = new(**GIVEN)
    try:
        assert "restored; start the gateway" in other.manage("restore", str(file)).stdout
        with other:
            since = other.now()
            assert other.client(key).call("public.echo", {"password": SECRET}).status == 200
            again = other.event(since, method="tools/call")
            assert again["api_key_id"] == event["api_key_id"] and again["request_digest"] == event["request_digest"]
            assert again["request_json"] == event["request_json"]  # the fingerprint too
            assert other.manage("audit", "verify", check=False).returncode == 0
            assert "admin.backup.restored" in [item["method"] for item in other.export()]
            other.stop()
            assert "not empty" in refused(other.manage("restore", str(file), check=False))
    finally:
        other.__exit__()


def test_secrets_that_are_missing_are_named_before_anything_is_changed(
    made: tuple[Gateway, Key, Path, dict[str, str]],
) -> None:
    file = made[2]
    other = new()
    try:
        said = refused(other.manage("restore", str(file), check=False))
        assert all(name in said for name in GIVEN) and "--other-secrets" in said
        another = {**GIVEN, "SENTINEL_REDACTION_KEY": "00112233445566778899aabbccddeeff"}
        other.environment |= another
        said = refused(other.manage("restore", str(file), check=False))
        assert "SENTINEL_REDACTION_KEY" in said and "SENTINEL_DATA_KEY" not in said
        assert "warning: not as in the backup" in other.manage("restore", str(file), "--other-secrets").stderr
    finally:
        other.__exit__()


def damaged(file: Path, folder: Path) -> Iterator[Path]:
    """Files that are no whole backup."""
    whole = file.read_bytes()
    broken = bytearray(whole)
    for at in range(len(whole) // 3, len(whole) // 3 + 40):
        broken[at] ^= 0x5A
    for number, data in enumerate((b"", b"some text\n", whole[:-2000], bytes(broken))):
        place = folder / f"damaged{number}"
        place.write_bytes(data)
        yield place
    for number, manifest in enumerate(([1], {"format": 1}, {"format": 1, "migrations": [1]}, {"format": 9})):
        place = folder / f"manifest{number}"
        with zipfile.ZipFile(place, "w") as archive:
            archive.writestr("manifest.json", json.dumps(manifest))
        yield place
    yield folder / "nowhere"
    yield folder


def test_what_is_no_backup_is_refused_in_a_line(
    made: tuple[Gateway, Key, Path, dict[str, str]], tmp_path: Path
) -> None:
    other = new(**GIVEN)
    try:
        for place in damaged(made[2], tmp_path):
            assert str(place) in refused(other.manage("restore", str(place), check=False))
        # One that would write outside of its place: refused before the first file.
        outside = tmp_path / "outside"
        with zipfile.ZipFile(made[2]) as source, zipfile.ZipFile(outside, "w") as archive:
            for item in source.infolist():
                data = source.read(item)
                if item.filename == "manifest.json":
                    manifest = json.loads(data)
                    manifest["secrets"].append("../../escaped")
                    data = json.dumps(manifest).encode()
                archive.writestr(item, data)
            archive.writestr("secrets/../../escaped", b"x")
        before = {path: path.read_bytes() for path in (other.var / "secrets").iterdir()}
        assert "outside of its place" in refused(other.manage("restore", str(outside), check=False))
        assert {path: path.read_bytes() for path in (other.var / "secrets").iterdir()} == before
        assert not any(path.is_file() for path in (other.var / "journal").rglob("*"))
        # One that was cut off while its files were put in place is not served.
        (other.var / UNFINISHED).touch()
        said = other.manage("serve", "--port", str(other.port), check=False)
        assert said.returncode != 0 and "was not finished" in said.stderr + said.stdout
    finally:
        other.__exit__()
