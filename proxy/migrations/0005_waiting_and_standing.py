from django.db import migrations, models

# Workers hear what another's calls have seen, so that whoever knows better may say so.
TRIGGER = """
CREATE TRIGGER upstreamcalls_bump_revision AFTER UPDATE OF calls_ok ON proxy_upstreamstatus
    FOR EACH STATEMENT EXECUTE FUNCTION sentinel_bump_revision('upstreams');
"""
NO_TRIGGER = "DROP TRIGGER upstreamcalls_bump_revision ON proxy_upstreamstatus;"


class Migration(migrations.Migration):
    dependencies = [
        ("proxy", "0004_secrets_bound_to_their_server"),
    ]

    operations = [
        migrations.AddField(
            model_name="upstream",
            name="tool_timeouts",
            field=models.JSONField(
                blank=True,
                db_default={},
                default=dict,
                help_text="Longest silence of single tools, in seconds, by name or pattern; the exact name counts, else the longest pattern.",
            ),
        ),
        migrations.AddField(
            model_name="upstreamstatus",
            name="calls_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="upstreamstatus",
            name="calls_method",
            field=models.CharField(blank=True, db_default="", default="", max_length=100),
        ),
        migrations.AddField(
            model_name="upstreamstatus",
            name="calls_ok",
            field=models.BooleanField(null=True),
        ),
        migrations.AddField(
            model_name="upstreamstatus",
            name="calls_reason",
            field=models.CharField(blank=True, db_default="", default="", max_length=60),
        ),
        migrations.RunSQL(TRIGGER, NO_TRIGGER),
    ]
