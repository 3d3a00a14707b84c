from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("audit", "0005_tool_errors"),
        ("sentinel", "0005_seal_second_factors"),
    ]

    operations = [
        migrations.AddField("overviewslot", "tool_errors", models.BigIntegerField(db_default=0)),
    ]
