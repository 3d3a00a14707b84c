from __future__ import annotations

import pytest

from core.conf import parsers
from proxy.upstreams import vault

KEY, OTHER = b"k" * 32, b"o" * 32
CRM = vault.Home("crm", "https://crm.example.com")
NAME = "header:authorization"
NONE = vault.Variables({}, {})


def store(value, home=CRM, name=NAME, variables=NONE):
    return vault.store(KEY, home, name, value, variables)


def test_a_literal_is_sealed_and_comes_back_only_in_its_place():
    stored = store("Bearer s3cret-é")
    assert "s3cret" not in stored
    assert vault.is_sealed(stored)
    assert stored != store("Bearer s3cret-é")
    assert vault.reveal(KEY, CRM, NAME, stored, NONE) == "Bearer s3cret-é"
    elsewhere = [
        (OTHER, CRM, NAME), (KEY, CRM, "header:x-other"), (KEY, CRM, "environment:authorization"),
        (KEY, vault.Home("crm2", CRM.reach), NAME), (KEY, vault.Home("crm", "http://crm.example.com"), NAME),
        (KEY, vault.Home("crm", "https://crm.example.com:8443"), NAME), (KEY, vault.Home("crm", ""), NAME),
    ]  # fmt: skip
    for key, home, name in elsewhere:
        with pytest.raises(vault.VaultError, match="decrypted"):
            vault.reveal(key, home, name, stored, NONE)
    for broken in (stored[:-4], stored + "A", "sealed:v1:", "sealed:v1:é", "plain", ""):
        with pytest.raises(vault.VaultError):
            vault.reveal(KEY, CRM, NAME, broken, NONE)
    assert vault.shown(stored) == vault.HIDDEN


def test_what_was_sealed_to_a_header_alone_does_not_open_for_an_upstream():
    with pytest.raises(vault.VaultError, match="Enter it again"):
        vault.reveal(KEY, CRM, NAME, vault.seal(KEY, NAME, "Bearer of an earlier version"), NONE)


@pytest.mark.parametrize(
    ("url", "reach"),
    [
        ("https://crm.example.com/mcp", "https://crm.example.com"),
        ("HTTPS://CRM.Example.com:443/other?x=1", "https://crm.example.com"),
        ("https://crm.example.com:8443/mcp", "https://crm.example.com:8443"),
        ("http://crm.example.com/mcp", "http://crm.example.com"),
        ("http://[::1]:9000/", "http://[::1]:9000"),
        ("https://crm.example.com@evil.example/", ""),
        ("nonsense", ""),
    ],
)
def test_where_an_upstream_is_reached(url, reach):
    assert vault.reach_of(transport="sse", url=url, command="", directory="") == reach


def test_commands_and_folders_are_told_apart():
    reaches = {
        vault.reach_of(transport="stdio", url="", command=command, directory=directory)
        for command, directory in (("a b", ""), ("a", "b"), ("a", ""), ("", "a"))
    }
    assert len(reaches) == 4


def test_a_reference_is_kept_as_it_is_and_read_from_the_environment():
    def having(environ, listed=None):
        return vault.Variables({"TOKEN_1": ""} if listed is None else listed, environ)

    assert store("env:TOKEN_1", variables=having({})) == "env:TOKEN_1"
    assert vault.reveal(KEY, CRM, NAME, "env:TOKEN_1", having({"TOKEN_1": "v"})) == "v"
    assert vault.reveal(KEY, CRM, NAME, "env:MCP_UPSTREAM_A", having({"MCP_UPSTREAM_A": "w"}, {})) == "w"
    assert vault.shown("env:TOKEN_1") == "env:TOKEN_1"
    for environ in ({}, {"TOKEN_1": ""}):
        with pytest.raises(vault.VaultError, match="TOKEN_1 is not set"):
            vault.reveal(KEY, CRM, NAME, "env:TOKEN_1", having(environ))
    for bad in ("env:", "env:1A", "env:A B", "env:A\n", "env:s3cr3t-entered-by-mistake"):
        with pytest.raises(vault.VaultError) as refused:
            store(bad)
        assert "s3cr3t" not in str(refused.value)


@pytest.mark.parametrize(
    "name",
    "SENTINEL_SECRET_KEY SENTINEL_METRICS_TOKEN DATABASE_URL REDIS_URL PGPASSWORD HOME PATH AWS_SECRET_ACCESS_KEY "
    "token_1 MCP_UPSTREAM mcp_upstream_x XMCP_UPSTREAM_X".split(),
)
def test_a_variable_that_was_not_meant_for_upstreams_is_neither_taken_nor_read(name):
    variables = vault.Variables({"TOKEN_1": ""}, {name: "the gateway's own"})
    with pytest.raises(vault.VaultError, match="SENTINEL_UPSTREAM_ENV"):
        store(f"env:{name}", variables=variables)
    with pytest.raises(vault.VaultError, match="SENTINEL_UPSTREAM_ENV"):
        vault.reveal(KEY, CRM, NAME, f"env:{name}", variables)


def test_a_variable_can_be_for_one_server_or_for_commands_alone():
    listed = parsers.variables("CRM_TOKEN@https://CRM.example.com:443, MAIL@stdio,ANY")
    variables = vault.Variables(listed, dict.fromkeys(listed, "value"))
    program = vault.Home("mail", vault.reach_of(transport="stdio", url="", command="mail-mcp", directory=""))
    evil = vault.Home("crm", "https://evil.example")
    may = {(home, name) for home in (CRM, program, evil) for name in listed if not variables.refusal(name, home.reach)}
    assert may == {(CRM, "CRM_TOKEN"), (program, "MAIL"), (CRM, "ANY"), (program, "ANY"), (evil, "ANY")}


@pytest.mark.parametrize(
    "raw",
    "SENTINEL_SECRET_KEY sentinel_key_peppers DATABASE_URL REDIS_URL PGPASSWORD DJANGO_SETTINGS_MODULE PATH HOME LD_PRELOAD "
    "PYTHONPATH HTTPS_PROXY POSTGRES_PASSWORD OTEL_EXPORTER_OTLP_HEADERS A-B 1A A@ A@crm A@https:// A@ftp://x A,A A@stdio:".split(),
)
def test_what_cannot_be_listed_refuses_the_start(raw):
    with pytest.raises(ValueError, match=r"must|names"):
        parsers.variables(raw)


def test_names_that_only_look_like_the_gateways_own_can_be_listed():
    raw = "LDAP_TOKEN,PGP_KEY,PGP_PASS,LCD_TOKEN,SSLLABS_KEY,SENTINELONE_TOKEN,PATHFINDER_KEY"
    assert list(parsers.variables(raw)) == raw.split(",")
