from django.db import migrations, models

BOUNDS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, "inf")


class Migration(migrations.Migration):
    dependencies = [
        ("audit", "0005_tool_errors"),
    ]

    operations = [
        migrations.CreateModel(
            name="Latency",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("minute", models.DateTimeField()),
                ("upstream", models.TextField()),
                ("bucket", models.SmallIntegerField()),
                ("number", models.BigIntegerField()),
                ("least_us", models.BigIntegerField()),
                ("most_us", models.BigIntegerField()),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("minute", "upstream", "bucket"), name="audit_one_latency_per_bucket"
                    )
                ],
            },
        ),
        # No longer written; what older rows have stays readable.
        *(migrations.AlterField("rollup", f"le_{bound}", models.BigIntegerField(db_default=0)) for bound in BOUNDS),
    ]
