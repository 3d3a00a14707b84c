"""Seal stored credentials anew, bound to their upstream's slug and to where it is reached."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from django.db import migrations

from proxy.upstreams import vault


def seal_anew(apps: Any, schema_editor: Any) -> None:
    """Open what is sealed to a header or variable alone, and seal it to its upstream too; what does not open stays."""
    for upstream in apps.get_model("proxy", "Upstream").objects.all():
        home = vault.Home(
            upstream.slug,
            vault.reach_of(
                transport=upstream.transport,
                url=upstream.url,
                command=upstream.command,
                directory=upstream.working_directory,
            ),
        )
        upstream.headers = {
            name: _anew(home, f"header:{name.lower()}", stored) for name, stored in upstream.headers.items()
        }
        upstream.environment = {
            name: _anew(home, f"environment:{name}", stored) for name, stored in upstream.environment.items()
        }
        upstream.client_key = _anew(home, "client-key", upstream.client_key)
        upstream.save(update_fields=["headers", "environment", "client_key"])


def _anew(home: vault.Home, name: str, stored: str) -> str:
    if not vault.is_sealed(stored):
        return stored
    _refuse_other_key()
    key = settings.SENTINEL.data_key
    try:
        return vault.seal(key, home.place(name), vault.unseal(key, name, stored))
    except vault.VaultError:
        return stored  # its key is gone already: whoever looks at the upstream is told to enter it again


def _refuse_other_key() -> None:
    """Refuse a data key of this command's own making: what it cannot open now would never be opened again."""
    config = settings.SENTINEL
    if config.production and {"secret_key", "data_key"} <= config.generated:
        raise CommandError(
            "stored credentials of upstreams are to be sealed anew: "
            "set SENTINEL_SECRET_KEY (and SENTINEL_DATA_KEY) as for the gateway."
        )


class Migration(migrations.Migration):
    """Secrets go where they were meant to go."""

    dependencies = [("proxy", "0003_dispatchers")]

    operations = [migrations.RunPython(seal_anew, migrations.RunPython.noop)]
