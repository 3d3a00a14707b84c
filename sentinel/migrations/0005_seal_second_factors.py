"""The seeds of second factors are sealed where they stand."""

from django.conf import settings
from django.core.management.base import CommandError
from django.db import migrations

from core.conf import settings as conf
from sentinel.users import seeds


def seal(apps, schema_editor):
    """Seal every seed that stands there in clear."""
    for device in apps.get_model("otp_totp", "TOTPDevice").objects.exclude(key__startswith=seeds.PREFIX):
        problem = conf.unfit_for_production(settings.SENTINEL)
        if problem:  # with a key of this command's own making they would never open again
            raise CommandError(problem)
        device.key = seeds.seal(device.user_id, device.key)
        device.save(update_fields=["key"])


def unseal(apps, schema_editor):
    """Go back to the form that earlier versions read."""
    for device in apps.get_model("otp_totp", "TOTPDevice").objects.filter(key__startswith=seeds.PREFIX):
        device.key = seeds.unseal(device.user_id, device.key)
        device.save(update_fields=["key"])


class Migration(migrations.Migration):
    dependencies = [("sentinel", "0004_recovery_codes"), ("otp_totp", "0003_add_timestamps")]

    operations = [migrations.RunPython(seal, unseal)]
