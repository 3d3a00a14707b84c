import uuid

import django.utils.timezone
from django.db import migrations, models

STATES = ("waiting", "running", "done", "failed")


class Migration(migrations.Migration):
    dependencies = [
        ("audit", "0006_latencies"),
    ]

    operations = [
        migrations.CreateModel(
            name="VerifyJob",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("created_by", models.CharField(max_length=150)),
                (
                    "state",
                    models.CharField(choices=[(state, state) for state in STATES], default="waiting", max_length=9),
                ),
                ("done", models.PositiveIntegerField(default=0)),
                ("of", models.PositiveIntegerField(default=0)),
                (
                    "beat_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now, help_text="When whoever works on it was last heard of."
                    ),
                ),
                ("finished_at", models.DateTimeField(blank=True, null=True)),
                ("error", models.TextField(blank=True, default="")),
                ("actor", models.JSONField(default=dict)),
                ("events", models.BigIntegerField(default=0)),
                ("since", models.DateTimeField(blank=True, null=True)),
                ("seconds", models.FloatField(default=0.0)),
                ("report", models.JSONField(blank=True, null=True)),
            ],
            options={
                "ordering": ["-created_at"],
                "abstract": False,
                "constraints": [
                    models.CheckConstraint(condition=models.Q(("state__in", STATES)), name="verifyjob_state_word")
                ],
            },
        ),
    ]
