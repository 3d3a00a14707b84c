import django.db.models.deletion
from django.db import migrations, models

# Every change that the gateway's workers must learn of counts the revision up, once a statement and transaction.
# What was merely seen of an upstream (a check's steps) does not, its era does.
TRIGGERS = """
CREATE TRIGGER upstream_bumps_revision AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON proxy_upstream
    FOR EACH STATEMENT EXECUTE FUNCTION sentinel_bump_revision('upstreams');
CREATE TRIGGER upstreamstatus_bumps_revision AFTER UPDATE OF era ON proxy_upstreamstatus
    FOR EACH STATEMENT EXECUTE FUNCTION sentinel_bump_revision('upstreams');
CREATE TRIGGER catalogueitem_bumps_revision AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON proxy_catalogueitem
    FOR EACH STATEMENT EXECUTE FUNCTION sentinel_bump_revision('upstreams');
"""
NO_TRIGGERS = """
DROP TRIGGER upstream_bumps_revision ON proxy_upstream;
DROP TRIGGER upstreamstatus_bumps_revision ON proxy_upstreamstatus;
DROP TRIGGER catalogueitem_bumps_revision ON proxy_catalogueitem;
"""


class Migration(migrations.Migration):
    initial = True

    dependencies = [("policies", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="CatalogueItem",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("tool", "tool"),
                            ("prompt", "prompt"),
                            ("resource", "resource"),
                            ("template", "resource template"),
                        ],
                        max_length=10,
                    ),
                ),
                (
                    "name",
                    models.CharField(
                        help_text="The tool's or prompt's name, the resource's URI, the template.", max_length=1024
                    ),
                ),
                ("definition", models.TextField(help_text="The definition as last seen: canonical JSON, ASCII only.")),
                ("hash", models.CharField(max_length=64)),
                ("pinned_definition", models.TextField(blank=True, default="")),
                ("pinned_hash", models.CharField(blank=True, default="", max_length=64)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("pinned", "pinned: as approved"),
                            ("new", "new: not yet approved, usable"),
                            ("changed", "changed since approval, usable"),
                            ("quarantined", "quarantined: hidden and refused until approved"),
                        ],
                        max_length=12,
                    ),
                ),
                (
                    "flags",
                    models.JSONField(blank=True, default=list, help_text="Hidden text and other things to look at."),
                ),
                ("present", models.BooleanField(default=True, help_text="Whether the upstream's last list had it.")),
                ("first_seen_at", models.DateTimeField(auto_now_add=True)),
                ("changed_at", models.DateTimeField(blank=True, null=True)),
                ("approved_at", models.DateTimeField(blank=True, null=True)),
                ("approved_by", models.CharField(blank=True, default="", max_length=200)),
            ],
            options={
                "ordering": ["upstream", "kind", "name"],
                "permissions": [("approve_item", "Can approve a definition")],
            },
        ),
        migrations.CreateModel(
            name="Upstream",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "slug",
                    models.CharField(
                        help_text="Its name in addresses and rules: a-z, 0-9 and hyphens.", max_length=63, unique=True
                    ),
                ),
                ("name", models.CharField(blank=True, default="", max_length=200)),
                ("description", models.TextField(blank=True, default="")),
                (
                    "transport",
                    models.CharField(
                        choices=[
                            ("streamable-http", "Streamable HTTP"),
                            ("sse", "HTTP+SSE (older)"),
                            ("stdio", "stdio (a command started by the gateway)"),
                        ],
                        default="streamable-http",
                        max_length=20,
                    ),
                ),
                (
                    "url",
                    models.TextField(
                        blank=True, default="", help_text="The MCP endpoint, such as https://tools.example.com/mcp."
                    ),
                ),
                (
                    "command",
                    models.TextField(
                        blank=True,
                        default="",
                        help_text="For stdio: program and arguments, split as a shell would, run without a shell.",
                    ),
                ),
                ("working_directory", models.TextField(blank=True, default="")),
                (
                    "environment",
                    models.JSONField(
                        blank=True,
                        default=dict,
                        help_text="For stdio: the whole environment of the command; env:VAR copies a variable.",
                    ),
                ),
                (
                    "process_mode",
                    models.CharField(
                        choices=[
                            ("shared", "one process for all sessions"),
                            ("session", "one process for each session"),
                        ],
                        default="shared",
                        max_length=10,
                    ),
                ),
                ("memory_limit_mb", models.PositiveIntegerField(blank=True, null=True)),
                (
                    "headers",
                    models.JSONField(
                        blank=True,
                        default=dict,
                        help_text="Sent with each request; env:VAR takes the value from the environment.",
                    ),
                ),
                ("ca_pem", models.TextField(blank=True, default="", verbose_name="CA certificates (PEM)")),
                ("client_cert_pem", models.TextField(blank=True, default="", verbose_name="client certificate (PEM)")),
                ("client_key", models.TextField(blank=True, default="", editable=False, verbose_name="client key")),
                (
                    "networks",
                    models.JSONField(
                        blank=True,
                        default=list,
                        help_text="If given, the only networks in which this upstream's addresses may lie.",
                    ),
                ),
                ("connect_timeout", models.FloatField(blank=True, null=True)),
                ("first_byte_timeout", models.FloatField(blank=True, null=True)),
                ("idle_timeout", models.FloatField(blank=True, null=True)),
                (
                    "max_concurrent",
                    models.PositiveIntegerField(
                        default=512, help_text="Calls waiting for an answer at once, per worker."
                    ),
                ),
                ("max_answer_bytes", models.PositiveBigIntegerField(blank=True, null=True)),
                (
                    "refusals",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("", "as the installation says"),
                            ("auto", "in-band inside a legacy session, HTTP status otherwise"),
                            ("http", "always as HTTP status"),
                            ("in-band", "always as HTTP 200 with a JSON-RPC error"),
                        ],
                        default="",
                        max_length=10,
                    ),
                ),
                (
                    "audit_level",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("", "as the installation says"),
                            ("full", "request and response"),
                            ("request", "request only"),
                            ("digest", "digests and sizes only"),
                            ("none", "sizes only"),
                        ],
                        default="",
                        max_length=10,
                    ),
                ),
                (
                    "catalogue_policy",
                    models.CharField(
                        choices=[
                            ("allow", "allowed, with an alarm"),
                            ("quarantine", "hidden and refused until approved"),
                        ],
                        default="allow",
                        max_length=12,
                    ),
                ),
                ("enabled", models.BooleanField(default=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
            ],
            options={
                "ordering": ["slug"],
                "permissions": [("start_command", "Can give an upstream a command that the gateway starts")],
            },
        ),
        migrations.CreateModel(
            name="UpstreamStatus",
            fields=[
                (
                    "upstream",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="status",
                        serialize=False,
                        to="proxy.upstream",
                    ),
                ),
                (
                    "era",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("", "not known"),
                            ("legacy", "legacy (sessions)"),
                            ("modern", "modern (stateless)"),
                            ("dual", "both"),
                        ],
                        default="",
                        max_length=10,
                    ),
                ),
                ("era_checked_at", models.DateTimeField(blank=True, null=True)),
                ("versions", models.JSONField(blank=True, default=list)),
                ("server_info", models.JSONField(blank=True, default=dict)),
                ("checked_at", models.DateTimeField(blank=True, null=True)),
                ("ok", models.BooleanField(null=True)),
                ("steps", models.JSONField(blank=True, default=list)),
                ("catalogue_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "verbose_name_plural": "upstream statuses",
            },
        ),
        migrations.AddConstraint(
            model_name="upstream",
            constraint=models.CheckConstraint(
                condition=models.Q(("slug__regex", "^[a-z0-9][a-z0-9-]{0,62}$")),
                name="upstream_slug_form",
                violation_error_message="A slug is a-z, 0-9 and hyphens, starts with a letter or digit, at most 63 long.",
            ),
        ),
        migrations.AddConstraint(
            model_name="upstream",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("transport", "stdio"), ("url", ""), models.Q(("command", ""), _negated=True)),
                    models.Q(
                        ("command", ""),
                        ("transport__in", ["streamable-http", "sse"]),
                        models.Q(("url", ""), _negated=True),
                    ),
                    _connector="OR",
                ),
                name="upstream_url_or_command",
                violation_error_message="A stdio upstream has a command and no URL, any other a URL and no command.",
            ),
        ),
        migrations.AddConstraint(
            model_name="upstream",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("client_key", ""), models.Q(("client_cert_pem", ""), _negated=True), _connector="OR"
                ),
                name="upstream_client_key_has_certificate",
                violation_error_message="A client key needs its certificate.",
            ),
        ),
        migrations.AddConstraint(
            model_name="upstream",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("connect_timeout__isnull", True), ("connect_timeout__gt", 0), _connector="OR"),
                    models.Q(("first_byte_timeout__isnull", True), ("first_byte_timeout__gt", 0), _connector="OR"),
                    models.Q(("idle_timeout__isnull", True), ("idle_timeout__gt", 0), _connector="OR"),
                    ("max_concurrent__gt", 0),
                ),
                name="upstream_timeouts_positive",
                violation_error_message="Time-outs and the number of concurrent calls are greater than zero.",
            ),
        ),
        migrations.AddConstraint(
            model_name="upstream",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("refusals__in", ["", "auto", "http", "in-band"]),
                    ("audit_level__in", ["", "full", "request", "digest", "none"]),
                    ("catalogue_policy__in", ["allow", "quarantine"]),
                    ("process_mode__in", ["shared", "session"]),
                ),
                name="upstream_vocabulary",
            ),
        ),
        migrations.AddField(
            model_name="catalogueitem",
            name="upstream",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="catalogue", to="proxy.upstream"
            ),
        ),
        migrations.AddConstraint(
            model_name="upstreamstatus",
            constraint=models.CheckConstraint(
                condition=models.Q(("era__in", ["", "legacy", "modern", "dual"])), name="upstream_era_known"
            ),
        ),
        migrations.AddConstraint(
            model_name="catalogueitem",
            constraint=models.UniqueConstraint(fields=("upstream", "kind", "name"), name="catalogue_item_once"),
        ),
        migrations.AddConstraint(
            model_name="catalogueitem",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("hash", models.F("pinned_hash")), ("status", "pinned")),
                    models.Q(
                        ("status__in", ["new", "changed", "quarantined"]),
                        models.Q(("hash", models.F("pinned_hash")), _negated=True),
                    ),
                    _connector="OR",
                ),
                name="catalogue_pinned_is_present_definition",
            ),
        ),
        migrations.AddConstraint(
            model_name="catalogueitem",
            constraint=models.CheckConstraint(
                condition=models.Q(("kind__in", ["tool", "prompt", "resource", "template"])),
                name="catalogue_kind_known",
            ),
        ),
        migrations.RunSQL(TRIGGERS, NO_TRIGGERS),
    ]
