"""Who may do what, as stored: constraints keep out what must not exist, triggers count each change.

A rule's reach is said outright (`any_role`, `any_key`), so that deleting a role or a key can only ever narrow a rule.
"""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models import F, Func, Q, Value
from django.db.models.lookups import Exact, In
from django.utils import timezone

from core.columns import NetworkField
from core.jobs import Job
from policies import vocabulary


def _choices(words: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(word, word.replace("-", " ").replace("_", " ")) for word in words]


def _json_type(field: str) -> Func:
    return Func(F(field), function="jsonb_typeof", output_field=models.TextField())


class Role(models.Model):
    """What a key may be: the name that rules and limits speak of."""

    name = models.CharField(
        max_length=64,
        unique=True,
        validators=[RegexValidator(vocabulary.ROLE_NAME, "Letters, digits and . _ - only, at most 64.")],
    )
    description = models.CharField(max_length=500, blank=True, default="")

    class Meta:
        ordering = ["name"]
        constraints = [models.CheckConstraint(name="role_name_form", condition=Q(name__regex=vocabulary.ROLE_NAME))]

    def __str__(self) -> str:
        return self.name


class ApiKey(models.Model):
    """Who calls: an agent's key holds a role, an administrative key holds a duty, none holds both.

    Only a revoked key may have neither: its role was dropped since, and stands in `former_role`.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    public_id = models.CharField(max_length=12, unique=True, editable=False)
    name = models.CharField(max_length=100)
    role = models.ForeignKey(Role, on_delete=models.PROTECT, null=True, blank=True, related_name="api_keys")
    duty = models.CharField(max_length=20, null=True, blank=True, choices=_choices(vocabulary.DUTIES))
    owner = models.CharField(max_length=200, blank=True, default="", help_text="A person or team to ask about it.")
    description = models.CharField(max_length=500, blank=True, default="")
    expires_at = models.DateTimeField(null=True, blank=True)
    networks = ArrayField(
        NetworkField(), blank=True, default=list, help_text="Where it may be used from; none listed: anywhere."
    )
    upstreams = ArrayField(
        models.CharField(max_length=63), blank=True, default=list, help_text="What it may reach; none listed: all."
    )
    query_allowed = models.BooleanField(default=True, help_text="May be sent as ?api_key=.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    created_by = models.CharField(max_length=150, blank=True, default="", editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    revoked_by = models.CharField(max_length=150, blank=True, default="", editable=False)
    revoked_reason = models.CharField(max_length=500, blank=True, default="", editable=False)
    former_role = models.CharField(max_length=64, blank=True, default="", editable=False)

    class Meta:
        verbose_name = "API key"
        ordering = ["name", "created_at"]
        constraints = [
            models.CheckConstraint(
                name="apikey_role_or_duty",
                condition=Q(role__isnull=False, duty__isnull=True, former_role="")
                | Q(role__isnull=True, duty__isnull=False, former_role="")
                | (Q(role__isnull=True, duty__isnull=True, revoked_at__isnull=False) & ~Q(former_role="")),
                violation_error_message="A key holds a role or an administrative duty, and not both.",
            ),
            models.CheckConstraint(
                name="apikey_duty_word", condition=Q(duty__isnull=True) | Q(duty__in=vocabulary.DUTIES)
            ),
            models.CheckConstraint(name="apikey_public_id_form", condition=Q(public_id__regex=r"^[0-9A-Za-z]{12}$")),
            models.CheckConstraint(name="apikey_has_name", condition=~Q(name="")),
            models.CheckConstraint(
                name="apikey_revoked_whole", condition=Q(revoked_at__isnull=False) | Q(revoked_by="", revoked_reason="")
            ),
            models.CheckConstraint(
                name="apikey_duty_expires",
                condition=Q(duty__isnull=True) | Q(expires_at__isnull=False),
                violation_error_message="An administrative key always expires.",
            ),
            models.CheckConstraint(
                name="apikey_expires_later", condition=Q(expires_at__isnull=True) | Q(expires_at__gt=F("created_at"))
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix})"

    @property
    def prefix(self) -> str:
        """The part of the key that may be shown: it names the key and proves nothing."""
        return f"mcps_live_{self.public_id}"

    @property
    def is_live(self) -> bool:
        """Neither revoked nor expired, by this machine's clock."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > timezone.now())

    @property
    def state(self) -> str:
        return "live" if self.is_live else "revoked" if self.revoked_at else "expired"

    @property
    def role_name(self) -> str:
        """The role that it holds, or held until that was dropped; nothing of an administrative key."""
        return self.role.name if self.role else self.former_role


class KeySecret(models.Model):
    """One generation of a key's secret, as a digest; during a rotation the older one carries its last moment."""

    key = models.ForeignKey(ApiKey, on_delete=models.CASCADE, related_name="secrets")
    generation = models.PositiveIntegerField()
    digest = models.BinaryField(max_length=32)
    pepper_id = models.PositiveIntegerField()
    last4 = models.CharField(max_length=4)
    created_at = models.DateTimeField(default=timezone.now)
    not_after = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["key", "-generation"]
        constraints = [
            models.UniqueConstraint(fields=["key", "generation"], name="keysecret_generation_once"),
            models.UniqueConstraint(
                fields=["key"], condition=Q(not_after__isnull=True), name="keysecret_one_without_end"
            ),
            models.CheckConstraint(
                name="keysecret_digest_length",
                condition=Exact(
                    Func(F("digest"), function="octet_length", output_field=models.IntegerField()), Value(32)
                ),
            ),
            models.CheckConstraint(name="keysecret_generation_from_one", condition=Q(generation__gte=1)),
        ]

    def __str__(self) -> str:
        return f"{self.key_id} generation {self.generation}"


class KeyUsage(models.Model):
    """When and from where a key was last seen; written at most once a minute, and no change of policy."""

    key = models.OneToOneField(ApiKey, on_delete=models.CASCADE, primary_key=True, related_name="usage")
    last_used_at = models.DateTimeField()
    last_ip = models.GenericIPAddressField(null=True, blank=True)
    last_query_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.key_id} at {self.last_used_at:%Y-%m-%d %H:%M}"


class Rule(models.Model):
    """An allowance or a refusal with its reach: all parts of it must hold; a refusal beats every allowance."""

    name = models.CharField(max_length=100, blank=True, default="", help_text="Shown in events; unique when given.")
    effect = models.CharField(max_length=5, choices=_choices(vocabulary.EFFECTS))
    any_role = models.BooleanField(default=False, help_text="For every role, whatever is chosen below.")
    roles = models.ManyToManyField(Role, blank=True, related_name="rules")
    any_key = models.BooleanField(default=True, help_text="For every key of these roles.")
    keys = models.ManyToManyField(ApiKey, blank=True, related_name="rules")
    kinds = ArrayField(models.CharField(max_length=8, choices=_choices(vocabulary.KINDS)))
    upstreams = ArrayField(
        models.CharField(max_length=63), blank=True, default=list, help_text="None listed: every upstream."
    )
    pattern = models.CharField(
        max_length=vocabulary.MAX_PATTERN, help_text="The whole name, case-sensitive; * and ? are wildcards."
    )
    days = ArrayField(
        models.CharField(max_length=3, choices=_choices(vocabulary.WEEKDAYS)),
        blank=True,
        default=list,
        help_text="None listed: every day.",
    )
    from_time = models.TimeField(null=True, blank=True)
    to_time = models.TimeField(null=True, blank=True, help_text="Not included; before the start: past midnight.")
    time_zone = models.CharField(max_length=64, blank=True, default="UTC")
    valid_from = models.DateTimeField(null=True, blank=True)
    valid_until = models.DateTimeField(null=True, blank=True)
    networks = ArrayField(NetworkField(), blank=True, default=list, help_text="None listed: from anywhere.")
    reason = models.CharField(
        max_length=vocabulary.MAX_REASON, blank=True, default="", help_text="Told to the caller who is refused."
    )
    note = models.CharField(max_length=1000, blank=True, default="", help_text="Never told to a caller.")
    enabled = models.BooleanField(default=True)
    observe = models.BooleanField(default=False, help_text="Decides nothing; what it would do stands in the event.")

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["name"], condition=~Q(name=""), name="rule_name_once"),
            models.CheckConstraint(name="rule_effect_word", condition=Q(effect__in=vocabulary.EFFECTS)),
            models.CheckConstraint(
                name="rule_kinds_words",
                condition=Q(kinds__contained_by=list(vocabulary.KINDS)) & Q(kinds__len__gt=0),
            ),
            models.CheckConstraint(name="rule_has_pattern", condition=~Q(pattern="")),
            models.CheckConstraint(name="rule_days_words", condition=Q(days__contained_by=list(vocabulary.WEEKDAYS))),
            models.CheckConstraint(
                name="rule_hours_whole",
                condition=Q(from_time__isnull=True, to_time__isnull=True)
                | (Q(from_time__isnull=False, to_time__isnull=False) & ~Q(from_time=F("to_time"))),
                violation_error_message="Give both ends of the time window, and let them differ.",
            ),
            models.CheckConstraint(
                name="rule_valid_in_order",
                condition=Q(valid_from__isnull=True) | Q(valid_until__isnull=True) | Q(valid_until__gt=F("valid_from")),
            ),
        ]

    def __str__(self) -> str:
        return self.name or f"{self.effect} {self.pattern}"


class RuleCondition(models.Model):
    """One thing that must hold of the call for its rule to match; a rule's conditions hold together or not at all."""

    rule = models.ForeignKey(Rule, on_delete=models.CASCADE, related_name="conditions")
    subject = models.CharField(max_length=11, choices=_choices(vocabulary.SUBJECTS), default="arguments")
    path = models.CharField(
        max_length=300, blank=True, default="", help_text='Like amount, filter.table, items[].path or ["a.b"].c'
    )
    quantifier = models.CharField(max_length=5, blank=True, default="", choices=_choices(vocabulary.QUANTIFIERS))
    operator = models.CharField(max_length=12, choices=_choices(tuple(vocabulary.OPERATORS)))
    value: models.JSONField[Any, Any] = models.JSONField(null=True, blank=True)

    class Meta:
        ordering = ["rule", "id"]
        constraints = [
            models.CheckConstraint(name="condition_subject_word", condition=Q(subject__in=vocabulary.SUBJECTS)),
            models.CheckConstraint(
                name="condition_operator_word", condition=Q(operator__in=list(vocabulary.OPERATORS))
            ),
            models.CheckConstraint(
                name="condition_path_unless_name",
                condition=(Q(subject="name") & Q(path="")) | (~Q(subject="name") & ~Q(path="")),
                violation_error_message="A condition on the name has no path; any other has one.",
            ),
            models.CheckConstraint(
                name="condition_quantifier_for_lists",
                condition=(Q(path__contains="[]") & Q(quantifier__in=vocabulary.QUANTIFIERS))
                | (~Q(path__contains="[]") & Q(quantifier="")),
                violation_error_message="A path with [] needs every or any; any other path takes neither.",
            ),
            models.CheckConstraint(
                name="condition_value_fits",
                condition=(Q(operator__in=["present", "absent"]) & Q(value__isnull=True))
                | (
                    Q(value__isnull=False)
                    & (
                        (
                            Q(operator__in=["lt", "le", "gt", "ge", "min_length", "max_length"])
                            & Exact(_json_type("value"), Value("number"))
                        )
                        | (Q(operator__in=["in", "not_in"]) & Exact(_json_type("value"), Value("array")))
                        | (
                            Q(operator__in=["like", "not_like", "matches", "not_matches", "under", "not_under", "type"])
                            & Exact(_json_type("value"), Value("string"))
                        )
                        | (Q(operator__in=["eq", "ne"]) & In(_json_type("value"), ["string", "number", "boolean"]))
                    )
                ),
                violation_error_message="The value does not fit the operator.",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.path or self.subject} {self.operator} {self.value!s:.60}"


class RateLimit(models.Model):
    """At most `requests` in any `window_seconds`, counted in one bucket per combination of `per`.

    `is_default` marks a limit that gives way to one that names the tool. `kind` empty: calls of tools, prompts and resources count.
    """

    name = models.CharField(max_length=100, blank=True, default="")
    key = models.ForeignKey(ApiKey, on_delete=models.CASCADE, null=True, blank=True, related_name="limits")
    role = models.ForeignKey(Role, on_delete=models.CASCADE, null=True, blank=True, related_name="limits")
    upstream = models.CharField(max_length=63, blank=True, default="", help_text="Empty: every upstream.")
    kind = models.CharField(max_length=8, blank=True, default="", choices=_choices(vocabulary.KINDS))
    pattern = models.CharField(max_length=vocabulary.MAX_PATTERN, blank=True, default="", help_text="Empty: any name.")
    is_default = models.BooleanField(default=False, help_text="Gives way to a limit that names the tool.")
    per = ArrayField(
        models.CharField(max_length=8, choices=_choices(vocabulary.LIMIT_IDENTITIES)),
        blank=True,
        default=list,
        help_text="One bucket for each of these; none: one bucket for all.",
    )
    requests = models.PositiveIntegerField(validators=[MinValueValidator(1), MaxValueValidator(1_000_000)])
    window_seconds = models.PositiveIntegerField(validators=[MinValueValidator(1), MaxValueValidator(31 * 86400)])
    burst = models.PositiveIntegerField(null=True, blank=True, help_text="How many may come at once; empty: all.")
    enabled = models.BooleanField(default=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(
                name="ratelimit_requests_range", condition=Q(requests__gte=1, requests__lte=1_000_000)
            ),
            models.CheckConstraint(
                name="ratelimit_window_range", condition=Q(window_seconds__gte=1, window_seconds__lte=31 * 86400)
            ),
            models.CheckConstraint(
                name="ratelimit_burst_range",
                condition=Q(burst__isnull=True) | Q(burst__gte=1, burst__lte=F("requests")),
            ),
            models.CheckConstraint(
                name="ratelimit_per_words", condition=Q(per__contained_by=list(vocabulary.LIMIT_IDENTITIES))
            ),
            models.CheckConstraint(name="ratelimit_kind_word", condition=Q(kind="") | Q(kind__in=vocabulary.KINDS)),
            models.CheckConstraint(
                name="ratelimit_names_need_kind",
                condition=~Q(kind="") | (Q(pattern="", is_default=False) & ~Q(per__contains=["tool"])),
                violation_error_message="A limit that tells names apart says of which kind they are.",
            ),
            models.CheckConstraint(name="ratelimit_default_names_none", condition=Q(is_default=False) | Q(pattern="")),
        ]

    def __str__(self) -> str:
        return self.name or f"{self.requests} in {self.window_seconds} s"


class AuditLevel(models.Model):
    """How much of a payload events keep, for the targets named; where several match, the one that keeps least."""

    role = models.ForeignKey(Role, on_delete=models.CASCADE, null=True, blank=True, related_name="audit_levels")
    upstream = models.CharField(max_length=63, blank=True, default="", help_text="Empty: every upstream.")
    kinds = ArrayField(models.CharField(max_length=8, choices=_choices(vocabulary.KINDS)))
    pattern = models.CharField(max_length=vocabulary.MAX_PATTERN)
    level = models.CharField(max_length=8, choices=_choices(vocabulary.AUDIT_LEVELS))

    class Meta:
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(name="auditlevel_word", condition=Q(level__in=vocabulary.AUDIT_LEVELS)),
            models.CheckConstraint(
                name="auditlevel_kinds_words",
                condition=Q(kinds__contained_by=list(vocabulary.KINDS)) & Q(kinds__len__gt=0),
            ),
            models.CheckConstraint(name="auditlevel_has_pattern", condition=~Q(pattern="")),
        ]

    def __str__(self) -> str:
        return f"{self.level} for {self.pattern}"


class PolicyVersion(models.Model):
    """The whole policy as it was after one change, who made it, and what it changed; numbers are those in events."""

    number = models.BigIntegerField(primary_key=True)
    at = models.DateTimeField(default=timezone.now)
    author = models.CharField(max_length=150)
    origin = models.CharField(max_length=40, blank=True, default="")
    document = models.TextField()
    diff = models.TextField(blank=True, default="")
    #: which ids its rules had, by what they say (`policy_acts.rule_ids`); empty in versions from before that was kept
    rules = models.JSONField(db_default={}, default=dict, editable=False)

    class Meta:
        ordering = ["-number"]
        constraints = [models.CheckConstraint(name="policyversion_from_one", condition=Q(number__gte=1))]

    def __str__(self) -> str:
        return f"version {self.number}"


class Revision(models.Model):
    """How often each kind of governed data has changed; triggers count it, workers compare it."""

    kind = models.CharField(max_length=20, primary_key=True)
    number = models.BigIntegerField(default=1)
    txid = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.kind} {self.number}"


class ReplayJob(Job):
    """A draft policy on its way through recorded events, and what was found when it is over."""

    document = models.TextField()
    since = models.DateTimeField()
    until = models.DateTimeField()
    #: whether conditions on arguments were asked: the report is then for those alone who may see arguments
    payloads = models.BooleanField(default=True)
    report: models.JSONField[Any, Any] = models.JSONField(null=True, blank=True)

    class Meta(Job.Meta):
        constraints = [
            models.CheckConstraint(
                name="replayjob_state_word",
                condition=Q(state__in=("waiting", "running", "done", "failed")),
            )
        ]


class IdempotentRequest(models.Model):
    """What a request with an Idempotency-Key was answered, so that its repetition is answered the same. No secret is kept."""

    caller = models.CharField(max_length=60)
    key = models.CharField(max_length=255)
    digest = models.CharField(max_length=128)
    status = models.PositiveSmallIntegerField(default=0)
    headers: models.JSONField[Any, Any] = models.JSONField(default=dict)
    body: models.JSONField[Any, Any] = models.JSONField(null=True)
    created_at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["caller", "key"], name="idempotent_request_once")]

    def __str__(self) -> str:
        return f"{self.caller} {self.key}"
