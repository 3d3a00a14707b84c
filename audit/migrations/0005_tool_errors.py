from django.db import migrations, models

# On a partitioned table a column without a default is an entry in the catalogue, whatever the log holds; NULL says that an
# event is older than the column (see audit.events.tool_errors). Whoever reads or writes is not waited for longer than a moment.
ADD = """
SET LOCAL lock_timeout = '30s';
ALTER TABLE audit_auditevent ADD COLUMN tool_error boolean;
SET LOCAL lock_timeout = DEFAULT
"""


class Migration(migrations.Migration):
    dependencies = [
        ("audit", "0004_resumed_calls"),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(ADD, "ALTER TABLE audit_auditevent DROP COLUMN tool_error")],
            state_operations=[
                migrations.AddField("auditevent", "tool_error", models.BooleanField(blank=True, null=True)),
            ],
        ),
        migrations.AddField("rollup", "tool_errors", models.BigIntegerField(db_default=0)),
    ]
