"""Seeds of second factors are no secret that a reader of the database, or of a backup, could use."""

from __future__ import annotations

import dataclasses
import importlib

import pytest
from django.apps import apps
from django.core.management import CommandError
from django.db import connection
from django_otp.oath import totp
from django_otp.plugins.otp_totp.models import TOTPDevice

from sentinel.models import User
from sentinel.users import seeds

pytestmark = pytest.mark.django_db


@pytest.fixture
def device():
    return TOTPDevice.objects.create(user=User.objects.create_user("vera"), name="authenticator", confirmed=True)


def stored() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT key FROM otp_totp_totpdevice")
        return cursor.fetchone()[0]


def test_what_stands_in_the_column_is_sealed_and_the_device_works(device):
    seed = device.key
    assert len(bytes.fromhex(seed)) == 20
    assert stored().startswith("sealed:") and seed not in stored() and len(stored()) <= 80
    for read in (
        TOTPDevice.objects.get(),
        TOTPDevice.objects.only("id").get(),
        TOTPDevice.objects.defer("key").get(),
        *TOTPDevice.objects.filter(user__username="vera"),
    ):
        assert read.key == seed
    device.refresh_from_db()
    assert device.key == seed
    assert device.verify_token(totp(device.bin_key))  # saves the device, as many times as it likes
    device.throttle_reset()
    device.save()
    device.save(update_fields=["confirmed"])
    assert stored().startswith("sealed:")
    assert TOTPDevice.objects.get().key == seed


def test_a_seed_opens_for_its_person_and_its_key_alone(device, settings, caplog):
    seed, sealed = device.key, stored()
    other = User.objects.create_user("mallory")
    TOTPDevice.objects.update(user=other)
    moved = TOTPDevice.objects.get()
    assert moved.key != seed
    assert not moved.verify_token(totp(bytes.fromhex(seed)))
    assert "cannot be used" in caplog.text and seed not in caplog.text
    moved.save()
    assert stored() == sealed  # it is not lost by being read with the wrong key
    TOTPDevice.objects.update(user=User.objects.get(username="vera"))
    assert TOTPDevice.objects.get().key == seed
    settings.SENTINEL = dataclasses.replace(settings.SENTINEL, data_key=b"another data key" * 2)
    assert TOTPDevice.objects.get().key != seed


@pytest.mark.parametrize("damaged", ["sealed:", "sealed:!", "sealed:AAAA", "sealed:" + "A" * 64])
def test_a_damaged_seed_accepts_nothing_and_breaks_nothing(device, damaged):
    TOTPDevice.objects.update(key=damaged)
    read = TOTPDevice.objects.get()
    assert not read.verify_token(totp(b""))
    assert stored() == damaged


def test_what_stood_there_in_clear_is_sealed_by_the_migration_and_is_the_same(device, settings):
    migration = importlib.import_module("sentinel.migrations.0005_seal_second_factors")
    seed = device.key
    TOTPDevice.objects.update(key=seed)
    assert TOTPDevice.objects.get().key == seed  # until then it is read as it stands
    assert stored() == seed
    local = settings.SENTINEL
    settings.SENTINEL = dataclasses.replace(local, production=True, generated=frozenset({"secret_key"}))
    with pytest.raises(CommandError, match="SENTINEL_SECRET_KEY"):
        migration.seal(apps, None)
    settings.SENTINEL = local
    migration.seal(apps, None)
    assert stored().startswith("sealed:")
    assert seeds.unseal(device.user_id, stored()) == seed
    assert TOTPDevice.objects.get().key == seed
    before = stored()
    migration.seal(apps, None)
    assert stored() == before
