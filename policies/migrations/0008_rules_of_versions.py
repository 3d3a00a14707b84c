from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("policies", "0007_replays_without_arguments"),
    ]

    operations = [
        migrations.AddField("policyversion", "rules", models.JSONField(db_default={}, default=dict, editable=False)),
    ]
