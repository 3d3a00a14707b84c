from __future__ import annotations

import pytest

from proxy import vault

KEY, OTHER = b"k" * 32, b"o" * 32


def test_a_literal_is_sealed_and_comes_back_only_in_its_place():
    stored = vault.store(KEY, "header:authorization", "Bearer s3cret-é")
    assert "s3cret" not in stored
    assert vault.is_sealed(stored)
    assert stored != vault.store(KEY, "header:authorization", "Bearer s3cret-é")
    assert vault.reveal(KEY, "header:authorization", stored) == "Bearer s3cret-é"
    for key, place in ((OTHER, "header:authorization"), (KEY, "header:x-other"), (KEY, "environment:authorization")):
        with pytest.raises(vault.VaultError, match="decrypted"):
            vault.reveal(key, place, stored)
    for broken in (stored[:-4], stored + "A", "sealed:v1:", "sealed:v1:é", "plain", ""):
        with pytest.raises(vault.VaultError):
            vault.reveal(KEY, "header:authorization", broken)
    assert vault.shown(stored) == vault.HIDDEN


def test_a_reference_is_kept_as_it_is_and_read_from_the_environment():
    assert vault.store(KEY, "p", "env:TOKEN_1") == "env:TOKEN_1"
    assert vault.reveal(KEY, "p", "env:TOKEN_1", {"TOKEN_1": "v"}) == "v"
    assert vault.shown("env:TOKEN_1") == "env:TOKEN_1"
    for environ in ({}, {"TOKEN_1": ""}):
        with pytest.raises(vault.VaultError, match="TOKEN_1 is not set"):
            vault.reveal(KEY, "p", "env:TOKEN_1", environ)
    for bad in ("env:", "env:1A", "env:A B", "env:A\n"):
        with pytest.raises(vault.VaultError):
            vault.store(KEY, "p", bad)
