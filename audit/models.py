"""What happened, as it is stored: events nobody can change, the books that make them exactly once, and what is redacted of them."""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import UUID

from django.contrib.postgres.indexes import GinIndex
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import connections, models
from django.db.models import Q
from django.db.models.functions import Cast
from django.utils import timezone

from audit.events import tool_errors
from audit.redaction import rules
from audit.redaction.detect.pii import KINDS as PERSONAL
from core.columns import ExactJSONField
from core.ids import uuid7
from core.jobs import STATES, Job

__all__ = [
    "AuditEvent",
    "AuditEventQuerySet",
    "ExportJob",
    "Latency",
    "OpenCall",
    "OutboxEvent",
    "Outcome",
    "QuarantinedFrame",
    "RedactionRule",
    "Resumption",
    "Rollup",
    "Tombstone",
    "VerifyJob",
    "WriterPosition",
]


class Outcome(models.TextChoices):
    """How a request ended."""

    ALLOWED = "allowed", "Allowed"
    UNAUTHENTICATED = "unauthenticated", "Unauthenticated"
    DENIED = "denied", "Denied"
    LIMITED = "limited", "Limited"
    INVALID = "invalid", "Invalid"
    UPSTREAM_ERROR = "upstream_error", "Upstream error"
    CANCELLED = "cancelled", "Cancelled"
    INTERRUPTED = "interrupted", "Interrupted"
    UNRECORDED = "unrecorded", "Unrecorded (a gap)"
    CHANGED = "changed", "Changed"


def new_id() -> UUID:
    return uuid7()


def sanitised(values: dict[str, Any]) -> dict[str, Any]:
    """Pass the values of a new event through the one place where events are made."""
    from audit.events.event import COLUMNS, JSON, Event

    if "pk" in values:
        values = {**values, "id": values["pk"]}
        del values["pk"]
    event = Event(**values)
    made = dict(zip(COLUMNS, event.as_row(), strict=True))
    return made | {name: getattr(event, name) for name in JSON}


class AuditEventQuerySet(models.QuerySet["AuditEvent"]):
    """Events, with their payloads as they are stored or without them; never counted one by one."""

    def with_text(self) -> AuditEventQuerySet:
        """Add `request_text` and `response_text`: the payloads exactly as stored."""
        return self.annotate(
            request_text=Cast("request_json", models.TextField()),
            response_text=Cast("response_json", models.TextField()),
        )

    def without_payloads(self) -> AuditEventQuerySet:
        """Leave the payloads in the database until someone asks for them."""
        return self.defer("request_json", "response_json")

    def about_count(self) -> int:
        """Estimate how many events the whole log holds, from the planner's statistics."""
        sql = (
            "SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint FROM pg_inherits i"
            " JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = to_regclass(%s)"
        )
        with connections[self.db].cursor() as cursor:
            cursor.execute(sql, [self.model._meta.db_table])
            return int(cursor.fetchone()[0])


class AuditEvent(models.Model):
    """What one request left behind; insert-only, partitioned by day on its time-ordered id.

    Built with keyword arguments it passes the same sanitation as every event, so that no call site can forget it.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    ts = models.DateTimeField("time", default=timezone.now)
    writer = models.TextField(default="", blank=True)
    boot = models.BigIntegerField(default=0)
    seq = models.BigIntegerField(default=0)
    api_key_id = models.UUIDField("API key", null=True, blank=True)
    key_prefix = models.TextField(default="", blank=True)
    key_name = models.TextField("key", default="", blank=True)
    role = models.TextField(default="", blank=True)
    auth_method = models.TextField(default="none", blank=True)
    client_ip = models.GenericIPAddressField("client address", null=True, blank=True)
    user_agent = models.TextField(default="", blank=True)
    upstream = models.TextField(default="", blank=True)
    protocol_version = models.TextField(default="", blank=True)
    session = models.TextField(default="", blank=True)
    rpc_id = models.TextField("JSON-RPC id", default="", blank=True)
    method = models.TextField(default="", blank=True)
    tool_name = models.TextField("target", null=True, blank=True)
    target_kind = models.TextField(default="", blank=True)
    outcome = models.TextField(choices=Outcome.choices, default=Outcome.INVALID)
    reason = models.TextField(default="", blank=True)
    decision = ExactJSONField(default=dict)
    status_code = models.SmallIntegerField("status", default=0)
    latency_ms = models.FloatField("latency (ms)", default=0.0)
    upstream_ms = models.FloatField("upstream (ms)", null=True, blank=True)
    request_json = ExactJSONField("request", null=True, blank=True)
    response_json = ExactJSONField("response", null=True, blank=True)
    request_bytes = models.BigIntegerField(default=0)
    response_bytes = models.BigIntegerField(default=0)
    request_digest = models.TextField(default="", blank=True)
    response_digest = models.TextField(default="", blank=True)
    truncated = models.BooleanField(default=False)
    redactions = models.IntegerField(default=0)
    count = models.IntegerField(default=1)
    first_ts = models.DateTimeField("first", null=True, blank=True)
    last_ts = models.DateTimeField("last", null=True, blank=True)
    trace_id = models.TextField(default="", blank=True)
    details = ExactJSONField(default=dict)
    #: NULL in events from before there was this column; see audit.events.tool_errors
    tool_error = models.BooleanField(null=True, blank=True)
    search = models.TextField(default="", blank=True, editable=False)

    objects = AuditEventQuerySet.as_manager()

    class Meta:
        verbose_name = "event"
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["api_key_id", "id"], name="audit_event_key"),
            models.Index(fields=["tool_name", "id"], name="audit_event_tool"),
            models.Index(fields=["outcome", "id"], name="audit_event_outcome"),
            GinIndex(fields=["search"], name="audit_event_search", opclasses=["gin_trgm_ops"]),
        ]
        constraints = [
            models.CheckConstraint(
                condition=~Q(outcome="allowed") | Q(api_key_id__isnull=False), name="audit_allowed_has_a_key"
            ),
            models.CheckConstraint(condition=Q(outcome__in=Outcome.values), name="audit_outcome_is_known"),
            models.CheckConstraint(condition=Q(count__gte=1), name="audit_count_is_positive"),
        ]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if kwargs and not args:
            kwargs = sanitised(kwargs)
        super().__init__(*args, **kwargs)

    def __str__(self) -> str:
        return f"{self.id} {self.outcome}"

    @property
    def failed(self) -> bool:
        """Whether the tool or the upstream itself said that it failed."""
        if self.tool_error is not None:
            return self.tool_error
        return isinstance(self.details, dict) and tool_errors.said(self.details)


class OpenCall(models.Model):
    """A call whose end is not stored yet; deleted in the transaction that stores its event."""

    KINDS = [("call", "Call"), ("counted", "Counted refusals")]

    id = models.UUIDField(primary_key=True, editable=False)
    kind = models.TextField(choices=KINDS, default="call")
    writer = models.TextField()
    boot = models.BigIntegerField()
    seq = models.BigIntegerField()
    ts = models.DateTimeField("started")
    answered = models.BooleanField(default=False)
    api_key_id = models.UUIDField(null=True)
    key_prefix = models.TextField(default="")
    key_name = models.TextField("key", default="")
    role = models.TextField(default="")
    upstream = models.TextField(default="")
    method = models.TextField(default="")
    tool_name = models.TextField("target", null=True)
    record = ExactJSONField()
    #: seconds for which its answer may come on another stream once its own has ended; 0: it may not
    wait = models.IntegerField(db_default=0)
    #: its own stream has ended, and that wait ends then (microseconds since 1970); 0: it has not
    until = models.BigIntegerField(db_default=0)

    class Meta:
        verbose_name = "running call"
        ordering = ["-id"]
        indexes = [models.Index(fields=["writer", "boot"], name="audit_opencall_writer")]

    def __str__(self) -> str:
        return f"{self.method} {self.tool_name or ''}".strip()


class Resumption(models.Model):
    """A stream that took up an open call, and the answer it brought; joined to the call's event by audit.drain.resumption."""

    #: the event of the request that opened the stream
    id = models.UUIDField(primary_key=True, editable=False)
    call = models.UUIDField(db_index=True)
    #: until when it holds the call open (microseconds since 1970)
    until = models.BigIntegerField()
    answer = ExactJSONField(null=True)

    def __str__(self) -> str:
        return f"{self.id} took up {self.call}"


class WriterPosition(models.Model):
    """How far one writer's journal is stored, and how far that writer is known to have come."""

    writer = models.TextField()
    boot = models.BigIntegerField()
    frame = models.BigIntegerField(default=0)
    seq = models.BigIntegerField(default=0)
    reported_frame = models.BigIntegerField(default=0)
    reported_seq = models.BigIntegerField(default=0)
    reported_at = models.DateTimeField(null=True)
    previous_boot = models.BigIntegerField(default=0)
    previous_seq = models.BigIntegerField(default=0)
    started_at = models.DateTimeField(null=True)
    drained_at = models.DateTimeField(null=True)
    closed_at = models.DateTimeField(null=True)
    ended_well = models.BooleanField(default=False, db_column="clean")
    details = ExactJSONField(default=dict)

    class Meta:
        verbose_name = "writer"
        ordering = ["writer", "boot"]
        constraints = [models.UniqueConstraint(fields=["writer", "boot"], name="audit_one_position_per_boot")]

    def __str__(self) -> str:
        return f"{self.writer}.{self.boot}"


class QuarantinedFrame(models.Model):
    """A frame of the journal that could not become a row, kept byte for byte until someone has looked at it."""

    writer = models.TextField()
    boot = models.BigIntegerField()
    frame = models.BigIntegerField()
    seq = models.BigIntegerField(null=True)
    place = models.TextField(default="")
    data = models.BinaryField()
    error = models.TextField()
    created_at = models.DateTimeField(default=timezone.now)
    resolved_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name = "quarantined frame"
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.writer}.{self.boot} frame {self.frame}"


class OutboxEvent(models.Model):
    """An event of an administrator's act, written in the transaction of the act itself; the drainer numbers and stores it."""

    number = models.BigAutoField(primary_key=True)
    event_id = models.UUIDField(unique=True)
    created_at = models.DateTimeField(default=timezone.now)
    record = ExactJSONField()

    class Meta:
        verbose_name = "event on its way"
        verbose_name_plural = "events on their way"
        ordering = ["number"]

    def __str__(self) -> str:
        return str(self.event_id)


class Tombstone(models.Model):
    """Numbers of one writer whose events were dropped by age, so that a hole they leave is an explained one."""

    writer = models.TextField()
    boot = models.BigIntegerField()
    first_seq = models.BigIntegerField()
    last_seq = models.BigIntegerField()
    partition = models.TextField()
    dropped_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["writer", "boot", "first_seq"]
        indexes = [models.Index(fields=["writer", "boot"], name="audit_tombstone_writer")]

    def __str__(self) -> str:
        return f"{self.writer}.{self.boot} {self.first_seq}-{self.last_seq}"


class Rollup(models.Model):
    """One minute of one kind of event, counted while the events are stored; the overview reads these, never the log.

    Only events that reached an upstream have a latency here. `tool_name` is empty for refusals, whose names a stranger chooses.
    `le_N` (at most N milliseconds and more than the bound before) counts in rows from before there was `Latency`, and there only.
    """

    minute = models.DateTimeField()
    outcome = models.TextField(choices=Outcome.choices)
    reason = models.TextField(default="")
    upstream = models.TextField(default="")
    method = models.TextField(default="")
    tool_name = models.TextField(default="")
    key_id = models.TextField(default="")
    key_name = models.TextField(default="")
    role = models.TextField(default="")
    requests = models.BigIntegerField(default=0)
    events = models.BigIntegerField(default=0)
    tool_errors = models.BigIntegerField(db_default=0)
    latency_count = models.BigIntegerField(default=0)
    latency_sum = models.FloatField(default=0.0)
    upstream_sum = models.FloatField(default=0.0)
    request_bytes = models.BigIntegerField(default=0)
    response_bytes = models.BigIntegerField(default=0)
    le_1 = models.BigIntegerField(db_default=0)
    le_2 = models.BigIntegerField(db_default=0)
    le_5 = models.BigIntegerField(db_default=0)
    le_10 = models.BigIntegerField(db_default=0)
    le_25 = models.BigIntegerField(db_default=0)
    le_50 = models.BigIntegerField(db_default=0)
    le_100 = models.BigIntegerField(db_default=0)
    le_250 = models.BigIntegerField(db_default=0)
    le_500 = models.BigIntegerField(db_default=0)
    le_1000 = models.BigIntegerField(db_default=0)
    le_2500 = models.BigIntegerField(db_default=0)
    le_5000 = models.BigIntegerField(db_default=0)
    le_inf = models.BigIntegerField(db_default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["minute", "outcome", "reason", "upstream", "method", "tool_name", "key_id", "key_name", "role"],
                name="audit_one_rollup_per_kind",
            )
        ]

    def __str__(self) -> str:
        return f"{self.minute} {self.outcome} {self.requests}"


class Latency(models.Model):
    """How long what reached one upstream in one minute took: counts in buckets 5 % wide, with the least and most of each.

    So any percentile is right within 5 %, whatever its size, and exact where its bucket holds one or two (audit.drain.latencies).
    """

    minute = models.DateTimeField()
    upstream = models.TextField()
    bucket = models.SmallIntegerField()
    number = models.BigIntegerField()
    least_us = models.BigIntegerField()
    most_us = models.BigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["minute", "upstream", "bucket"], name="audit_one_latency_per_bucket")
        ]

    def __str__(self) -> str:
        return f"{self.minute} {self.upstream} {self.number}"


class ExportJob(Job):
    """A large export on its way into a file, that only its requester may fetch."""

    user_id = models.BigIntegerField()
    actor = models.JSONField(default=dict)  # as audit.services.acts.Actor: the event at the end names them too
    format = models.CharField(max_length=10)
    filter = models.JSONField(default=dict)  # the conditions, as the events about the export keep them
    since = models.DateTimeField()
    until = models.DateTimeField()
    about = models.BigIntegerField(default=0)  # how many events the planner expects
    events = models.BigIntegerField(default=0)
    bytes = models.BigIntegerField(default=0)
    reached = models.DateTimeField(null=True, blank=True)

    class Meta(Job.Meta):
        constraints = [models.CheckConstraint(name="exportjob_state_word", condition=Q(state__in=STATES))]


class VerifyJob(Job):
    """A verification of the whole log that somebody asked for, and what was found when it is over."""

    actor = models.JSONField(default=dict)  # as audit.services.acts.Actor: the event at the end names them too
    events = models.BigIntegerField(default=0)
    since = models.DateTimeField(null=True, blank=True)  # the oldest event's time
    seconds = models.FloatField(default=0.0)
    report: models.JSONField[Any, Any] = models.JSONField(null=True, blank=True)

    class Meta(Job.Meta):
        constraints = [models.CheckConstraint(name="verifyjob_state_word", condition=Q(state__in=STATES))]


class RedactionRule(models.Model):
    """One name, pattern or sort of personal data that is redacted beside what always is."""

    KINDS = [("name", "Name"), ("pattern", "Pattern"), ("personal", "Personal data")]

    kind = models.CharField(max_length=8, choices=KINDS)
    value = models.CharField(
        max_length=rules.MAX_PATTERN,
        help_text="A name whose values are secrets (case and separators do not matter), a pattern in RE2's syntax, or "
        "one of email, card, iban, phone.",
    )
    label = models.CharField(
        max_length=40,
        blank=True,
        default="",
        validators=[RegexValidator(r"\A[a-z0-9-]*\Z", "Small letters, digits and hyphens only.")],
        help_text="Stands in the replacement: [REDACTED:label:…]. Empty: custom.",
    )
    note = models.CharField(max_length=1000, blank=True, default="", help_text="Why; for whoever reads this later.")
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects: ClassVar[models.Manager[RedactionRule]] = models.Manager()

    class Meta:
        verbose_name = "redaction rule"
        ordering = ["kind", "value"]
        constraints = [
            models.UniqueConstraint(
                fields=["kind", "value"],
                name="redaction_rule_once",
                violation_error_message="There is such a rule already.",
            ),
            models.CheckConstraint(name="redaction_rule_kind_word", condition=Q(kind__in=rules.KINDS) & ~Q(value="")),
            models.CheckConstraint(
                name="redaction_rule_personal_word", condition=~Q(kind="personal") | Q(value__in=sorted(PERSONAL))
            ),
            models.CheckConstraint(name="redaction_rule_label_form", condition=Q(label__regex=r"^[a-z0-9-]*$")),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.value}"

    def clean(self) -> None:
        """Refuse what could not be used, or would find everything."""
        try:
            rules.check(self.kind, self.value)
        except rules.PatternError as error:
            raise ValidationError({"value": f"{str(error)[0].upper()}{str(error)[1:]}."}) from None
        if self.kind == "personal" and self.label:
            raise ValidationError({"label": "Personal data is always labelled with its own kind."})
