"""What stands in SENTINEL_VAR/secrets is a secret, or the start is refused in one line; nothing there is ever replaced."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from core.conf import secrets as localsecrets
from core.conf import settings
from sentinel import demo
from sentinel.postgres.server import EmbeddedPostgres, PostgresError

PROJECT = Path(__file__).resolve().parents[3]
NAMES = ["secret-key", "key-pepper-1", "instance"]
BROKEN = {
    "empty": b"", "newline": b"\n", "spaces": b" \t\r\n ", "cut short": b"0123456", "nul": b"\0" * 65, "not hex": b"g" * 64,
    "not text": b"\xff\xfe" + secrets.token_bytes(62), "two lines": b"ab" * 32 + b"\n" + b"cd" * 32 + b"\n", "odd": b"abc" * 43,
}  # fmt: skip


def load(var: Path) -> settings.Config:
    return settings.load({"SENTINEL_VAR": str(var)})


@pytest.fixture
def var(tmp_path):
    load(tmp_path / "var")
    return tmp_path / "var"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_file_that_holds_no_secret_refuses_the_start_and_stays_as_it_is(var, name, content):
    place = var / "secrets" / name
    place.write_bytes(content)
    with pytest.raises(settings.ConfigError) as refused:
        load(var)
    text = str(refused.value)
    assert str(place) in text and "\n" not in text
    assert place.read_bytes() == content


@pytest.mark.parametrize("content", [b"00" * 32, b"ab" * 32], ids=["zeros", "one byte"])
def test_a_secret_that_is_none_refuses_too(var, content):
    (var / "secrets" / "secret-key").write_bytes(content)
    with pytest.raises(settings.ConfigError, match="too few different"):
        load(var)


def test_a_folder_or_a_link_to_nowhere_in_its_place_refuses(var):
    place = var / "secrets" / "secret-key"
    for make in (place.mkdir, lambda: place.symlink_to("nowhere")):
        if place.is_dir():
            place.rmdir()
        else:
            place.unlink()
        make()
        with pytest.raises(settings.ConfigError, match="secret-key"):
            load(var)


def test_the_databases_passwords_are_judged_alike(var):
    (var / "secrets" / "postgres-sentinel").write_text("")
    with pytest.raises(PostgresError, match="postgres-sentinel is empty"):
        EmbeddedPostgres(var, "x").password("sentinel")


def test_a_secret_that_others_could_read_is_closed_to_them(var):
    place = var / "secrets" / "secret-key"
    before = load(var).secret_key
    place.chmod(0o644)
    place.write_text(f"  {before}\r\n")
    assert load(var).secret_key == before
    assert place.stat().st_mode & 0o777 == 0o600


def test_a_disk_that_is_full_leaves_no_half_secret(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(localsecrets.UnusableSecret, match="No space left"):
        localsecrets.kept(tmp_path / "secrets", "secret-key")
    assert list((tmp_path / "secrets").iterdir()) == []


@pytest.mark.parametrize("name", ["secret-key", "postgres-sentinel"])
def test_the_command_says_so_in_one_line(var, name):
    (var / "secrets" / name).write_text("")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SENTINEL_", "DATABASE_"))}
    done = subprocess.run(
        [sys.executable, "manage.py", "serve", "--port", "0"],
        cwd=PROJECT, env={**environment, "SENTINEL_VAR": str(var)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"secrets/{name} is empty" in line


def test_a_value_that_slipped_into_a_list_of_names_is_not_repeated():
    with pytest.raises(settings.ConfigError, match="SENTINEL_UPSTREAM_ENV must list names") as refused:
        settings.load({"SENTINEL_VAR": "/nowhere", "SENTINEL_UPSTREAM_ENV": "CRM_TOKEN=s3cr3t"})
    assert "s3cr3t" not in str(refused.value)


def test_an_empty_pepper_is_refused_wherever_it_comes_from():
    with pytest.raises(settings.ConfigError, match="number 1 is empty"):
        settings.load({"SENTINEL_VAR": "/nowhere", "SENTINEL_KEY_PEPPERS": "1:"})


@pytest.mark.django_db
def test_demonstration_keys_that_were_cut_short_are_made_anew(tmp_path):
    place = tmp_path / "demo-keys"
    place.write_text('{"admin": {"id"')
    assert demo._keys(place, b"k" * 32)
    assert json.loads(place.read_text())
