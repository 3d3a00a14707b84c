"""The upstreams behind the gateway, what was last seen of them, and their catalogue of tools, prompts and resources."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

SLUG_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"


class Upstream(models.Model):
    """An MCP server behind the gateway."""

    class Transport(models.TextChoices):
        """How an upstream is spoken to."""

        STREAMABLE_HTTP = "streamable-http", "Streamable HTTP"
        SSE = "sse", "HTTP+SSE (older)"
        STDIO = "stdio", "stdio (a command started by the gateway)"

    class ProcessMode(models.TextChoices):
        """How many processes a stdio upstream has."""

        SHARED = "shared", "one process for all sessions"
        SESSION = "session", "one process for each session"

    class Refusals(models.TextChoices):
        """How refusals go out (SENTINEL_REFUSALS, for this upstream)."""

        DEFAULT = "", "as the installation says"
        AUTO = "auto", "as the tool's result within a legacy session, with their HTTP status otherwise"
        HTTP = "http", "always with their HTTP status"
        IN_BAND = "in-band", "always with HTTP 200, as a JSON-RPC error"
        TOOL_RESULT = "tool-result", "always with HTTP 200, as the tool's result"

    class AuditLevel(models.TextChoices):
        """How much of the payloads the audit events keep."""

        DEFAULT = "", "as the installation says"
        FULL = "full", "request and response"
        REQUEST = "request", "request only"
        DIGEST = "digest", "digests and sizes only"
        NONE = "none", "sizes only"

    class CataloguePolicy(models.TextChoices):
        """What happens to a definition that nobody has approved."""

        ALLOW = "allow", "allowed, with an alarm"
        QUARANTINE = "quarantine", "hidden and refused until approved"

    slug = models.CharField(
        max_length=63, unique=True, help_text="Its name in addresses and rules: a-z, 0-9 and hyphens."
    )
    name = models.CharField(max_length=200, blank=True, default="")
    description = models.TextField(blank=True, default="")
    transport = models.CharField(max_length=20, choices=Transport.choices, default=Transport.STREAMABLE_HTTP)
    url = models.TextField(blank=True, default="", help_text="The MCP endpoint, such as https://tools.example.com/mcp.")
    command = models.TextField(
        blank=True,
        default="",
        help_text="For stdio: program and arguments, split as a shell would, run without a shell.",
    )
    working_directory = models.TextField(blank=True, default="")
    environment = models.JSONField(
        blank=True,
        default=dict,
        help_text="For stdio: the whole environment of the command; env:VAR copies a variable.",
    )
    process_mode = models.CharField(max_length=10, choices=ProcessMode.choices, default=ProcessMode.SHARED)
    memory_limit_mb = models.PositiveIntegerField(null=True, blank=True)
    headers = models.JSONField(
        blank=True, default=dict, help_text="Sent with each request; env:VAR takes the value from the environment."
    )
    ca_pem = models.TextField("CA certificates (PEM)", blank=True, default="")
    client_cert_pem = models.TextField("client certificate (PEM)", blank=True, default="")
    client_key = models.TextField("client key", blank=True, default="", editable=False)
    networks = models.JSONField(
        blank=True, default=list, help_text="If given, the only networks in which this upstream's addresses may lie."
    )
    connect_timeout = models.FloatField(null=True, blank=True)
    first_byte_timeout = models.FloatField(null=True, blank=True)
    idle_timeout = models.FloatField(null=True, blank=True)
    tool_timeouts = models.JSONField(
        blank=True,
        default=dict,
        db_default={},
        help_text="Longest silence of single tools, in seconds, by name or pattern; the exact name counts, else the longest pattern.",
    )
    max_concurrent = models.PositiveIntegerField(
        default=512, help_text="Calls waiting for an answer at once, per worker."
    )
    max_answer_bytes = models.PositiveBigIntegerField(null=True, blank=True)
    refusals = models.CharField(max_length=12, choices=Refusals.choices, blank=True, default=Refusals.DEFAULT)
    audit_level = models.CharField(max_length=10, choices=AuditLevel.choices, blank=True, default=AuditLevel.DEFAULT)
    catalogue_policy = models.CharField(max_length=12, choices=CataloguePolicy.choices, default=CataloguePolicy.ALLOW)
    dispatchers = models.JSONField(
        blank=True,
        default=dict,
        db_default={},
        help_text="Tools that call or describe another by name: the tool, and the argument that names the other.",
    )
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["slug"]
        permissions = [("start_command", "Can give an upstream a command that the gateway starts")]
        constraints = [
            models.CheckConstraint(
                name="upstream_slug_form",
                condition=Q(slug__regex=SLUG_PATTERN),
                violation_error_message="A slug is a-z, 0-9 and hyphens, starts with a letter or digit, at most 63 long.",
            ),
            models.CheckConstraint(
                name="upstream_url_or_command",
                condition=(Q(transport="stdio", url="") & ~Q(command=""))
                | (Q(transport__in=["streamable-http", "sse"], command="") & ~Q(url="")),
                violation_error_message="A stdio upstream has a command and no URL, any other a URL and no command.",
            ),
            models.CheckConstraint(
                name="upstream_client_key_has_certificate",
                condition=Q(client_key="") | ~Q(client_cert_pem=""),
                violation_error_message="A client key needs its certificate.",
            ),
            models.CheckConstraint(
                name="upstream_timeouts_positive",
                condition=(Q(connect_timeout__isnull=True) | Q(connect_timeout__gt=0))
                & (Q(first_byte_timeout__isnull=True) | Q(first_byte_timeout__gt=0))
                & (Q(idle_timeout__isnull=True) | Q(idle_timeout__gt=0))
                & Q(max_concurrent__gt=0),
                violation_error_message="Time-outs and the number of concurrent calls are greater than zero.",
            ),
            models.CheckConstraint(
                name="upstream_vocabulary",
                condition=Q(refusals__in=["", "auto", "http", "in-band", "tool-result"])
                & Q(audit_level__in=["", "full", "request", "digest", "none"])
                & Q(catalogue_policy__in=["allow", "quarantine"])
                & Q(process_mode__in=["shared", "session"]),
            ),
        ]

    def __str__(self) -> str:
        return self.slug


class UpstreamStatus(models.Model):
    """What was last seen of an upstream: a check's steps, the era verdict; no setting, so kept apart."""

    class Era(models.TextChoices):
        """Which protocol eras an upstream speaks."""

        UNKNOWN = "", "not known"
        LEGACY = "legacy", "legacy (sessions)"
        MODERN = "modern", "modern (stateless)"
        DUAL = "dual", "both"

    upstream = models.OneToOneField(Upstream, on_delete=models.CASCADE, related_name="status", primary_key=True)
    era = models.CharField(max_length=10, choices=Era.choices, blank=True, default=Era.UNKNOWN)
    era_checked_at = models.DateTimeField(null=True, blank=True)
    versions = models.JSONField(blank=True, default=list)
    server_info = models.JSONField(blank=True, default=dict)
    checked_at = models.DateTimeField(null=True, blank=True)
    ok = models.BooleanField(null=True)
    steps = models.JSONField(blank=True, default=list)
    catalogue_at = models.DateTimeField(null=True, blank=True)
    #: what calls last saw, beside what checks see: written when that changes, not with each call
    calls_ok = models.BooleanField(null=True)
    calls_at = models.DateTimeField(null=True, blank=True)
    calls_method = models.CharField(max_length=100, blank=True, default="", db_default="")
    calls_reason = models.CharField(max_length=60, blank=True, default="", db_default="")

    class Meta:
        verbose_name_plural = "upstream statuses"
        constraints = [
            models.CheckConstraint(name="upstream_era_known", condition=Q(era__in=["", "legacy", "modern", "dual"]))
        ]

    def __str__(self) -> str:
        return f"{self.upstream_id}: {'ok' if self.ok else 'down' if self.ok is False else 'not checked'}"


class CatalogueItem(models.Model):
    """A tool, prompt or resource as an upstream defines it, and the definition that was approved."""

    class Kind(models.TextChoices):
        """What is defined."""

        TOOL = "tool", "tool"
        PROMPT = "prompt", "prompt"
        RESOURCE = "resource", "resource"
        TEMPLATE = "template", "resource template"

    class Status(models.TextChoices):
        """Whether the present definition is the approved one, and if not, whether it may be used."""

        PINNED = "pinned", "pinned: as approved"
        NEW = "new", "new: not yet approved, usable"
        CHANGED = "changed", "changed since approval, usable"
        QUARANTINED = "quarantined", "quarantined: hidden and refused until approved"

    upstream = models.ForeignKey(Upstream, on_delete=models.CASCADE, related_name="catalogue")
    kind = models.CharField(max_length=10, choices=Kind.choices)
    name = models.CharField(max_length=1024, help_text="The tool's or prompt's name, the resource's URI, the template.")
    definition = models.TextField(help_text="The definition as last seen: canonical JSON, ASCII only.")
    hash = models.CharField(max_length=64)
    pinned_definition = models.TextField(blank=True, default="")
    pinned_hash = models.CharField(max_length=64, blank=True, default="")
    status = models.CharField(max_length=12, choices=Status.choices)
    flags = models.JSONField(blank=True, default=list, help_text="Hidden text and other things to look at.")
    present = models.BooleanField(default=True, help_text="Whether the upstream's last list had it.")
    held = models.BooleanField(
        default=False,
        db_default=False,
        help_text="Quarantined by a person: refused until approved, whatever the upstream's policy.",
    )
    first_seen_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(null=True, blank=True)
    approved_at = models.DateTimeField(null=True, blank=True)
    approved_by = models.CharField(max_length=200, blank=True, default="")

    class Meta:
        ordering = ["upstream", "kind", "name"]
        permissions = [("approve_item", "Can approve a definition")]
        constraints = [
            models.UniqueConstraint(fields=["upstream", "kind", "name"], name="catalogue_item_once"),
            models.CheckConstraint(
                name="catalogue_pinned_is_present_definition",
                condition=(Q(status="pinned", hash=models.F("pinned_hash")))
                | (Q(status__in=["new", "changed", "quarantined"]) & ~Q(hash=models.F("pinned_hash"))),
            ),
            models.CheckConstraint(
                name="catalogue_kind_known", condition=Q(kind__in=["tool", "prompt", "resource", "template"])
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"
