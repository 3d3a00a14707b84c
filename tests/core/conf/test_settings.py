from __future__ import annotations

import dataclasses
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.conf import secrets, settings

GOOD = {
    "SENTINEL_SECRET_KEY": "b1946ac92492d2347c6235b4d2611184f00e",
    "SENTINEL_KEY_PEPPERS": f"1:{'00112233445566778899aabbccddeeff' * 2}",
}
URL = "postgresql://app:pw@db.example.com/sentinel"


def load(tmp_path: Path, **environ: str) -> settings.Config:
    return settings.load({"SENTINEL_VAR": str(tmp_path / "var"), **environ})


def test_the_settings_page_is_current() -> None:
    written = (settings.PROJECT / "docs" / "settings.md").read_text()
    assert written == settings.document(), "run `make docs-settings`"


def test_every_setting_has_a_help_and_a_variable_of_its_own() -> None:
    variables = [item.metadata["variable"] for item in settings.SETTINGS]
    assert len(set(variables)) == len(variables)
    assert all(item.metadata["help"].endswith(".") for item in settings.SETTINGS)


def test_secrets_that_are_not_given_are_made_once_for_their_owner_alone(tmp_path: Path) -> None:
    first, second = load(tmp_path), load(tmp_path)
    assert first == second
    assert first.generated == {"key_peppers", "secret_key", "redaction_key", "data_key"}
    assert (tmp_path / "var").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "var" / "secrets").stat().st_mode & 0o777 == 0o700
    for place in (tmp_path / "var" / "secrets").iterdir():
        assert place.stat().st_mode & 0o777 == 0o600
    assert load(tmp_path / "other").secret_key != first.secret_key
    assert load(tmp_path / "other").instance != first.instance


def test_two_processes_at_once_get_the_same_secret(tmp_path: Path) -> None:
    code = f"from pathlib import Path; from core.conf import secrets; print(secrets.kept(Path({str(tmp_path)!r}), 's'))"
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=settings.PROJECT)
        for _ in range(6)
    ]
    told = {process.communicate(timeout=60)[0].strip() for process in running}
    assert len(told) == 1
    assert len(told.pop()) == 64
    assert [place.name for place in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", "mysql://x/y"),
        ("DATABASE_URL", "postgresql://u:hunter2@h:99999/db"),
        ("DATABASE_URL", "postgresql://u:hunter2@h"),
        ("DATABASE_URL", "postgresql://u:hunter2@h/db?bogus=1"),
        ("DATABASE_URL", "postgresql://u:hunter2@h/db?sslmode=require&Connect_Timeout=5"),
        ("DATABASE_URL", "postgresql://u:hunter2@h/db?connect_timeout=soon"),
        ("DATABASE_URL", "postgresql://u:hunter2@[::1/db"),
        ("SENTINEL_OWNER_DATABASE_URL", "postgresql://u:hunter2@h/db?application=x"),
        ("SENTINEL_KEY_PEPPERS", "abc"),
        ("SENTINEL_KEY_PEPPERS", "1:zz"),
        ("SENTINEL_KEY_PEPPERS", "1:aa,1:bb"),
        ("SENTINEL_KEY_PEPPERS", ","),
        ("SENTINEL_PORT", "80000"),
        ("SENTINEL_PORT", "http"),
        ("SENTINEL_WORKERS", "0"),
        ("SENTINEL_PUBLIC_URL", "mcp.example.com"),
        ("SENTINEL_PUBLIC_URL", "https://mcp.example.com/?x=1"),
        ("SENTINEL_ALLOWED_HOSTS", "https://mcp.example.com"),
        ("SENTINEL_ALLOWED_ORIGINS", "mcp.example.com"),
        ("SENTINEL_ALLOWED_ORIGINS", "*"),
        ("SENTINEL_ALLOWED_ORIGINS", "https://*.example.com"),
        ("SENTINEL_ALLOWED_ORIGINS", "https://app.example.com/page"),
        ("SENTINEL_ALLOWED_ORIGINS", "https://bücher.example"),
        ("SENTINEL_ALLOWED_ORIGINS", "http:app.example.com"),
        ("SENTINEL_ALLOWED_ORIGINS", "vscode-webview://*"),
        ("SENTINEL_ALLOWED_ORIGINS", "tauri://localhost/x"),
        ("SENTINEL_TRUSTED_PROXIES", "10.0.0.0/99"),
        ("SENTINEL_TRUSTED_PROXIES", "10.0.0.1/8"),
        ("SENTINEL_AUDIT_MODE", "loose"),
        ("SENTINEL_AUDIT_FSYNC", "perhaps"),
        ("SENTINEL_AUDIT_RETENTION_DAYS", "-1"),
        ("SENTINEL_AUDIT_RETENTION_DAYS", "9" * 5000),
        ("SENTINEL_MAX_BODY_BYTES", "4 potatoes"),
        ("SENTINEL_BODY_TIMEOUT", "soon"),
        ("SENTINEL_REFUSALS", "HTTP!"),
        ("SENTINEL_SECOND_FACTOR_GROUPS", "administrators"),
        ("SENTINEL_DATA_KEY", "short"),
        ("REDIS_URL", "http://redis"),
        ("REDIS_URL", "redis://:pa#ss@127.0.0.1:6379/0"),
        ("REDIS_URL", "redis://127.0.0.1:6379/0?no_such_option=1"),
        ("REDIS_URL", "redis://127.0.0.1:99999/0"),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_variable(tmp_path: Path, variable: str, value: str) -> None:
    with pytest.raises(settings.ConfigError) as caught:
        load(tmp_path, **{variable: value})
    line = str(caught.value)
    assert line.startswith(variable)
    assert "\n" not in line
    assert len(line) < 220
    assert "hunter2" not in line


def test_values_are_read(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        SENTINEL_MAX_BODY_BYTES="2MiB",
        SENTINEL_BODY_TIMEOUT="5m",
        SENTINEL_KEY_PEPPERS="2:" + "ab" * 32 + ", 1:" + "cd" * 32,
        SENTINEL_TRUSTED_PROXIES="10.0.0.0/8, ::1",
        SENTINEL_ALLOWED_HOSTS="MCP.example.com, [::1]",
        SENTINEL_PUBLIC_URL="https://mcp.example.com/gate/",
        SENTINEL_QUERY_KEYS="no",
        SENTINEL_AUDIT_MODE="",
    )
    assert config.max_body_bytes == 2 * 1024**2
    assert config.body_timeout == 300
    assert config.key_peppers == {1: b"\xcd" * 32, 2: b"\xab" * 32}
    assert [str(network) for network in config.trusted_proxies] == ["10.0.0.0/8", "::1/128"]
    assert config.allowed_hosts == ("mcp.example.com", "[::1]")
    assert load(tmp_path, SENTINEL_PUBLIC_URL="https://x.example:8443").allowed_hosts[-1] == "x.example"
    assert config.public_url == "https://mcp.example.com/gate"
    assert config.query_keys is False
    assert config.audit_mode == "strict"


def test_origins_are_kept_as_browsers_name_them(tmp_path: Path) -> None:
    written = (
        "https://App.example.com:443,http://[::1]:5173, vscode-file://vscode-app,NULL,file://,chrome-extension://abc"
    )
    config = load(tmp_path, SENTINEL_ALLOWED_ORIGINS=written)
    assert config.allowed_origins == (
        "https://app.example.com", "http://[::1]:5173", "vscode-file://vscode-app", "null", "file://", "chrome-extension://abc",
    )  # fmt: skip


def test_no_upstream_may_be_private_but_in_the_demo(tmp_path: Path) -> None:
    assert load(tmp_path).upstream_networks == ()
    assert [str(network) for network in load(tmp_path, SENTINEL_DEMO="1").upstream_networks] == [
        "127.0.0.0/8",
        "::1/128",
    ]
    lock = tmp_path / "var" / "serve.lock"
    for text, held, reaches in (
        ("process 7, http://127.0.0.1:1, demo\n", True, True),
        ("process 7, http://127.0.0.1:1\n", True, False),
        ("process 7, http://127.0.0.1:1, demo\n", False, False),  # left by one that was killed
    ):
        lock.write_text(text)
        with lock.open() as holder:
            if held:
                fcntl.flock(holder, fcntl.LOCK_EX)
            assert bool(load(tmp_path).upstream_networks) is reaches, text


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"DATABASE_URL": URL}, "SENTINEL_SECRET_KEY"),
        ({"SENTINEL_HOST": "0.0.0.0"}, "SENTINEL_SECRET_KEY"),
        ({"DATABASE_URL": URL, **GOOD, "SENTINEL_SECRET_KEY": "hunter2"}, "SENTINEL_SECRET_KEY"),
        ({"DATABASE_URL": URL, **GOOD, "SENTINEL_SECRET_KEY": "a" * 64}, "SENTINEL_SECRET_KEY"),
        (
            {"DATABASE_URL": URL, **GOOD, "SENTINEL_SECRET_KEY": "changemechangemechangemechangeme123456"},
            "SENTINEL_SECRET_KEY",
        ),
        ({"DATABASE_URL": URL, **GOOD, "SENTINEL_KEY_PEPPERS": ""}, "SENTINEL_KEY_PEPPERS"),
        ({"DATABASE_URL": URL, **GOOD, "SENTINEL_KEY_PEPPERS": "1:00ff"}, "SENTINEL_KEY_PEPPERS"),
        ({"DATABASE_URL": URL, **GOOD, "SENTINEL_KEY_PEPPERS": "1:" + "00" * 32}, "SENTINEL_KEY_PEPPERS"),
        ({"DATABASE_URL": URL, **GOOD}, ""),
        ({"SENTINEL_HOST": "::", **GOOD}, ""),
        ({"SENTINEL_SECRET_KEY": "short"}, ""),
        ({"SENTINEL_HOST": "127.8.8.8"}, ""),
        ({"SENTINEL_HOST": "::1"}, ""),
    ],
)
def test_production_demands_strong_secrets(tmp_path: Path, environ: dict[str, str], named: str) -> None:
    line = settings.unfit_for_production(load(tmp_path, **environ))
    assert line.startswith(named) and bool(line) == bool(named) and "\n" not in line
    assert environ.get("SENTINEL_SECRET_KEY", "none such") not in line


def test_keys_that_are_not_given_come_from_the_secret_key(tmp_path: Path) -> None:
    here, there = load(tmp_path / "a", **GOOD), load(tmp_path / "b", **GOOD)
    assert here.data_key == there.data_key != here.redaction_key == there.redaction_key
    assert len(here.data_key) == 32


def test_a_folder_that_is_not_ours_is_not_taken_over(tmp_path: Path) -> None:
    shared = tmp_path / "var"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(settings.ConfigError, match="SENTINEL_VAR"):
        load(tmp_path)
    shared.chmod(0o755)
    (shared / "somebody's").touch()
    load(tmp_path)
    assert shared.stat().st_mode & 0o777 == 0o755


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "var").touch()
    with pytest.raises(settings.ConfigError, match="SENTINEL_VAR"):
        load(tmp_path)


def test_names_that_only_look_like_settings_are_told() -> None:
    assert settings.unknown({"SENTINEL_VAR": "x", "SENTINEL_ALLOWD_HOSTS": "y", "PATH": "z"}) == [
        "SENTINEL_ALLOWD_HOSTS"
    ]


def test_config_can_be_made_by_hand(tmp_path: Path) -> None:
    config = settings.Config(
        var=tmp_path, key_peppers={1: b"x"}, redaction_key=b"r", data_key=b"d", instance="00000000"
    )
    assert dataclasses.replace(config, demo=True).demo


@pytest.mark.parametrize("secret", ["", "x" * 31, "abababab" * 8, "secretsecretsecretsecretsecret12345678"])
def test_weak_secrets_are_known(secret: str) -> None:
    assert secrets.weakness(secret)


def test_a_random_secret_is_strong() -> None:
    for _ in range(1000):
        assert not secrets.weakness(os.urandom(32).hex())
        assert not secrets.weak_pepper(os.urandom(32))


def test_the_state_folder_is_where_it_was_found_whatever_a_link_leads_to_later(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert load(tmp_path / "link").var == (tmp_path / "real" / "var").resolve()
