"""A replay knows whether it looked at arguments; those there are did."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("policies", "0006_duties_expire")]

    operations = [migrations.AddField("replayjob", "payloads", models.BooleanField(default=True))]
