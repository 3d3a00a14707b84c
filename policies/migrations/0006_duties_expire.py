from datetime import timedelta

from django.db import migrations, models
from django.db.models import Q
from django.utils import timezone


def give_an_end(apps, schema_editor):
    keys = apps.get_model("policies", "ApiKey").objects.using(schema_editor.connection.alias)
    keys.filter(duty__isnull=False, expires_at=None).update(expires_at=timezone.now() + timedelta(days=90))


class Migration(migrations.Migration):
    dependencies = [("policies", "0005_replays_and_repetitions")]

    operations = [
        migrations.RunPython(give_an_end, migrations.RunPython.noop),
        migrations.AddConstraint(
            model_name="apikey",
            constraint=models.CheckConstraint(
                name="apikey_duty_expires",
                condition=Q(duty__isnull=True) | Q(expires_at__isnull=False),
                violation_error_message="An administrative key always expires.",
            ),
        ),
    ]
