"""A third way for refusals to go out: as the result of the tool that was called."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("proxy", "0005_waiting_and_standing"),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name="upstream",
            name="upstream_vocabulary",
        ),
        migrations.AlterField(
            model_name="upstream",
            name="refusals",
            field=models.CharField(
                blank=True,
                choices=[
                    ("", "as the installation says"),
                    ("auto", "as the tool's result within a legacy session, with their HTTP status otherwise"),
                    ("http", "always with their HTTP status"),
                    ("in-band", "always with HTTP 200, as a JSON-RPC error"),
                    ("tool-result", "always with HTTP 200, as the tool's result"),
                ],
                default="",
                max_length=12,
            ),
        ),
        migrations.AddConstraint(
            model_name="upstream",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("refusals__in", ["", "auto", "http", "in-band", "tool-result"]),
                    ("audit_level__in", ["", "full", "request", "digest", "none"]),
                    ("catalogue_policy__in", ["allow", "quarantine"]),
                    ("process_mode__in", ["shared", "session"]),
                ),
                name="upstream_vocabulary",
            ),
        ),
    ]
