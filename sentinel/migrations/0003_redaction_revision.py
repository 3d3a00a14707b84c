"""A change of what is redacted is told to every worker, as changes of keys and policy are."""

from django.db import migrations

TRIGGER = """
CREATE TRIGGER redactionrule_bumps_revision AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON audit_redactionrule
    FOR EACH STATEMENT EXECUTE FUNCTION sentinel_bump_revision('redaction')
"""
NO_TRIGGER = "DROP TRIGGER redactionrule_bumps_revision ON audit_redactionrule"


class Migration(migrations.Migration):
    dependencies = [
        ("sentinel", "0002_overview_and_views"),
        ("policies", "0001_initial"),
        ("audit", "0003_redaction_rules"),
    ]

    operations = [migrations.RunSQL(TRIGGER, NO_TRIGGER)]
