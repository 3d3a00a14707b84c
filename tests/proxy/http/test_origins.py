from __future__ import annotations

import pytest

from proxy.http.origins import host_allowed, normal, origin_allowed, origin_named

HOSTS = ("localhost", "127.0.0.1", "[::1]", ".example.com")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]", "[::1]:8000", "a.example.com", "example.com."]
)
def test_hosts_we_answer_for(host):
    assert host_allowed([host.encode()], HOSTS)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.test",
        "localhost.evil.test",
        "a/?x=",
        "localhost@evil",
        "localhost:x",
        "[::1]x",
        "[::2]",
        "localhost, evil",
        "notexample.com",
    ],
)
def test_hosts_we_do_not_answer_for(host):
    assert not host_allowed([host.encode()], HOSTS)


@pytest.mark.parametrize("around", [b"\xa0", b"\x85", b"\x1c", b"\x0c", b"\0", b"\xc2\xa0", b"'"])
def test_an_origin_with_anything_around_it_is_another(around):
    for origin in (around + b"https://app.test", b"https://app.test" + around):
        assert not origin_named([origin], ("https://app.test",))
        assert not origin_allowed([origin], ("https://app.test",), b"localhost", HOSTS)
    assert not origin_allowed([b"http://localhost" + around], (), b"localhost", HOSTS)
    assert not origin_allowed([around + b"http://localhost"], (), b"localhost", HOSTS)


def test_white_space_and_case_of_http_are_none_of_an_origin():
    assert origin_named([b" HTTPS://App.test\t"], ("https://app.test",))
    assert normal(b" HTTPS://App.test\t") == b"https://app.test"


def test_a_missing_or_doubled_host_is_not_ours():
    assert not host_allowed([], HOSTS)
    assert not host_allowed([b"localhost", b"localhost"], HOSTS)


@pytest.mark.parametrize(
    ("origin", "ok"),
    [
        ("http://localhost:8000", True),
        ("https://app.test", True),
        ("https://evil.test", False),
        ("null", False),
        ("http://localhost:9999", False),
        ("http://localhost:8000/path", False),
        ("http://[", False),
    ],
)
def test_origins(origin, ok):
    assert origin_allowed([origin.encode()], ("https://app.test",), b"localhost:8000", HOSTS) is ok


@pytest.mark.parametrize("origin", ["null", "vscode-file://vscode-app", "tauri://localhost", "https://app.test"])
def test_origins_of_every_kind_are_allowed_by_name_alone(origin):
    assert origin_allowed([origin.encode()], (origin,), b"localhost", HOSTS)
    assert not origin_allowed([origin.encode()], ("https://other.test",), b"localhost", HOSTS)
    assert not origin_allowed([origin.encode() + b".evil.test"], (origin,), b"localhost", HOSTS)


def test_no_origin_is_allowed_and_two_are_not():
    assert origin_allowed([], (), b"localhost", HOSTS)
    assert not origin_allowed([b"http://localhost", b"http://localhost"], (), b"localhost", HOSTS)
