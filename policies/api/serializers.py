"""Keys, roles, rules, limits and policy: what is taken and what is answered."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from audit.api.fields import Bool, Char, Choice, Moment, Network, Pattern, Strict, Whole
from policies import vocabulary

Output = serializers.Serializer[Any]
ROLE: dict[str, Any] = {"max_length": 64}


def _slugs(**kwargs: Any) -> serializers.ListField:
    return serializers.ListField(child=Pattern(vocabulary.SLUG, max_length=63), max_length=200, **kwargs)


def _networks(**kwargs: Any) -> serializers.ListField:
    return serializers.ListField(child=Network(), max_length=200, **kwargs)


# -- keys


class KeyChange(Strict):
    """What may be changed of a live key."""

    name = Char(max_length=100, help_text="Shown in every event: who or what calls with it.")
    role = Char(required=False, **ROLE, help_text="What the key may do at the gateway; an administrative key has none.")
    owner = Char(required=False, allow_blank=True, max_length=200, help_text="A person or team to ask about it.")
    description = Char(required=False, allow_blank=True, max_length=500)
    expires_at = Moment(required=False, allow_null=True, help_text="null: never (administrative keys always expire).")
    networks = _networks(required=False, help_text="Where it may be used from; none: anywhere.")
    upstreams = _slugs(required=False, help_text="What it may reach; none: everything its role may.")
    query_allowed = Bool(required=False, help_text="Whether it may be sent as ?api_key= to the gateway.")


class KeyCreation(KeyChange):
    """A new key: an agent's with a role, or an administrative one with a duty."""

    role = Char(required=False, allow_null=True, **ROLE, help_text="For an agent's key.")
    duty = Choice(
        required=False,
        allow_null=True,
        choices=vocabulary.DUTIES,
        help_text="For an administrative key, in place of a role.",
    )
    expires_at = Moment(
        required=False,
        allow_null=True,
        help_text="Not given: in 90 days for an administrative key, never for an agent's.",
    )


class Rotation(Strict):
    """How a key is rotated."""

    overlap_seconds = Whole(
        required=False, default=0, min_value=0, max_value=604800, help_text="How long the old secret stays good."
    )


class Revocation(Strict):
    """Why a key is revoked."""

    reason = Char(required=False, allow_blank=True, max_length=500, default="")


class Secret(Output):
    """One generation of a key's secret, without the secret."""

    generation = serializers.IntegerField()
    last4 = serializers.CharField()
    created_at = serializers.DateTimeField()
    not_after = serializers.DateTimeField(allow_null=True, help_text="When it stops working; null for the present one.")


class Key(Output):
    """A key, without its secret."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    prefix = serializers.CharField(help_text="The part that may be shown.")
    role = serializers.CharField(allow_null=True)
    duty = serializers.ChoiceField(choices=vocabulary.DUTIES, allow_null=True)
    owner = serializers.CharField()
    description = serializers.CharField()
    expires_at = serializers.DateTimeField(allow_null=True)
    networks = serializers.ListField(child=serializers.CharField())
    upstreams = serializers.ListField(child=serializers.CharField())
    query_allowed = serializers.BooleanField()
    state = serializers.ChoiceField(choices=("live", "expired", "revoked"))
    revoked_at = serializers.DateTimeField(allow_null=True)
    revoked_by = serializers.CharField()
    revoked_reason = serializers.CharField()
    created_at = serializers.DateTimeField()
    created_by = serializers.CharField()
    secrets = Secret(many=True)
    last_used_at = serializers.DateTimeField(allow_null=True)
    last_ip = serializers.CharField(allow_null=True)


class NewKey(Key):
    """A key and, this once, its secret."""

    key = serializers.CharField(allow_null=True, help_text="The secret; null when this answer is a repetition.")
    key_already_shown = serializers.BooleanField(help_text="Whether the secret was shown before, and is kept nowhere.")


# -- roles


class RoleChange(Strict):
    """A role's name and what it is for."""

    name = Pattern(vocabulary.ROLE_NAME, **ROLE)
    description = Char(required=False, allow_blank=True, max_length=500)


class Role(Output):
    """A role."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    description = serializers.CharField()
    live_keys = serializers.IntegerField(help_text="How many live keys hold it.")


# -- rules


class Condition(Strict):
    """One thing that must hold of a call for its rule to match."""

    subject = Choice(choices=vocabulary.SUBJECTS, required=False, default="arguments")
    path = Char(
        max_length=300,
        required=False,
        allow_blank=True,
        default="",
        help_text="Like amount, filter.table or items[].path; none for the name.",
    )
    quantifier = Choice(
        choices=("", *vocabulary.QUANTIFIERS),
        required=False,
        allow_blank=True,
        default="",
        help_text="For a path with [].",
    )
    operator = Choice(choices=tuple(vocabulary.OPERATORS))
    value = serializers.JSONField(
        required=False,
        allow_null=True,
        default=None,
        help_text="Text, number, boolean or a list of them, as the operator wants.",
    )


class Window(Strict):
    """When a rule is in force."""

    days = serializers.ListField(child=Choice(choices=vocabulary.WEEKDAYS), required=False, default=list, max_length=7)
    from_time = Pattern(
        r"^([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?$", required=False, allow_null=True, default=None, help_text="Like 09:00."
    )
    to_time = Pattern(
        r"^([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?$", required=False, allow_null=True, default=None,
        help_text="Not included; before the start: past midnight.",
    )  # fmt: skip
    zone = Char(required=False, max_length=64, default="UTC", help_text="Like Europe/Berlin.")
    valid_from = Moment(required=False, allow_null=True, default=None)
    valid_until = Moment(required=False, allow_null=True, default=None)


class RuleChange(Strict):
    """A rule: who, what, when, and what a refused caller is told."""

    name = Char(required=False, allow_blank=True, max_length=100, help_text="Shown in events; unique when given.")
    effect = Choice(choices=vocabulary.EFFECTS)
    roles = serializers.ListField(
        child=Char(**ROLE),
        allow_null=True,
        max_length=500,
        help_text="null: every role. An empty list: none, so it never matches.",
    )
    keys = serializers.ListField(
        child=Char(max_length=40),
        required=False,
        allow_null=True,
        max_length=500,
        help_text="By prefix; null: every key of these roles.",
    )
    kinds = serializers.ListField(
        child=Choice(choices=vocabulary.KINDS),
        required=False,
        min_length=1,
        max_length=4,
        help_text="Not given: tools.",
    )
    pattern = Char(
        max_length=vocabulary.MAX_PATTERN, help_text="The whole name, case-sensitive; * and ? are wildcards."
    )
    upstreams = _slugs(required=False, help_text="None: every upstream.")
    conditions = Condition(many=True, required=False, help_text="All must hold.")
    window = Window(required=False)
    networks = _networks(required=False, help_text="None: from anywhere.")
    reason = Char(
        required=False, allow_blank=True, max_length=vocabulary.MAX_REASON, help_text="Told to a refused caller."
    )
    note = Char(required=False, allow_blank=True, max_length=1000, help_text="Never told to a caller.")
    enabled = Bool(required=False)
    observe = Bool(required=False, help_text="Decides nothing; what it would do stands in the event.")


class RuleWindow(Output):
    """When a rule is in force."""

    days = serializers.ListField(child=serializers.ChoiceField(choices=vocabulary.WEEKDAYS))
    from_time = serializers.CharField(allow_null=True)
    to_time = serializers.CharField(allow_null=True)
    zone = serializers.CharField()
    valid_from = serializers.DateTimeField(allow_null=True)
    valid_until = serializers.DateTimeField(allow_null=True)


class RuleCondition(Output):
    """One thing that must hold of a call."""

    subject = serializers.ChoiceField(choices=vocabulary.SUBJECTS)
    path = serializers.CharField()
    quantifier = serializers.ChoiceField(choices=("", *vocabulary.QUANTIFIERS))
    operator = serializers.ChoiceField(choices=tuple(vocabulary.OPERATORS))
    value = serializers.JSONField(allow_null=True)


class Rule(Output):
    """A rule."""

    id = serializers.IntegerField(help_text="The id that events name.")
    name = serializers.CharField()
    effect = serializers.ChoiceField(choices=vocabulary.EFFECTS)
    roles = serializers.ListField(child=serializers.CharField(), allow_null=True)
    keys = serializers.ListField(child=serializers.CharField(), allow_null=True)
    kinds = serializers.ListField(child=serializers.ChoiceField(choices=vocabulary.KINDS))
    pattern = serializers.CharField()
    upstreams = serializers.ListField(child=serializers.CharField())
    conditions = RuleCondition(many=True)
    window = RuleWindow()
    networks = serializers.ListField(child=serializers.CharField())
    reason = serializers.CharField()
    note = serializers.CharField()
    enabled = serializers.BooleanField()
    observe = serializers.BooleanField()
    sentence = serializers.CharField(help_text="What it does, in words.")


# -- limits


class LimitChange(Strict):
    """A limit: at most so many requests in any so many seconds."""

    name = Char(required=False, allow_blank=True, max_length=100)
    requests = Whole(min_value=1, max_value=1_000_000)
    window_seconds = Whole(min_value=1, max_value=31 * 86400)
    burst = Whole(
        required=False,
        allow_null=True,
        min_value=1,
        max_value=1_000_000,
        help_text="How many may come at once; null: all.",
    )
    per = serializers.ListField(
        child=Choice(choices=vocabulary.LIMIT_IDENTITIES),
        required=False,
        max_length=4,
        help_text="One count for each of these; none: one for all.",
    )
    key = Char(required=False, allow_null=True, max_length=40, help_text="Only this key, by prefix.")
    role = Char(required=False, allow_null=True, **ROLE, help_text="Only this role.")
    upstream = Pattern(vocabulary.SLUG, max_length=63, required=False, allow_null=True, help_text="Only this upstream.")
    kind = Choice(
        choices=vocabulary.KINDS, required=False, allow_null=True, help_text="Only these; null: every request."
    )
    pattern = Char(
        required=False, allow_null=True, max_length=vocabulary.MAX_PATTERN, help_text="Only names like this."
    )
    is_default = Bool(required=False, help_text="Gives way to a limit that names the tool.")
    enabled = Bool(required=False)


class Limit(Output):
    """A limit."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    requests = serializers.IntegerField()
    window_seconds = serializers.IntegerField()
    burst = serializers.IntegerField(allow_null=True)
    per = serializers.ListField(child=serializers.ChoiceField(choices=vocabulary.LIMIT_IDENTITIES))
    key = serializers.CharField(allow_null=True)
    role = serializers.CharField(allow_null=True)
    upstream = serializers.CharField(allow_null=True)
    kind = serializers.ChoiceField(choices=vocabulary.KINDS, allow_null=True)
    pattern = serializers.CharField(allow_null=True)
    is_default = serializers.BooleanField()
    enabled = serializers.BooleanField()
    sentence = serializers.CharField(help_text="What it does, in words.")


# -- the policy as a whole


class Draft(Strict):
    """A policy as text."""

    document = Char(
        max_length=4_000_000, allow_blank=True, help_text="The policy in YAML; docs/policy.md describes the language."
    )


class Policy(Output):
    """The policy as stored."""

    version = serializers.IntegerField(help_text="The version that events carry.")
    at = serializers.DateTimeField(allow_null=True)
    author = serializers.CharField()
    origin = serializers.CharField()
    document = serializers.CharField()


class Change(Output):
    """One change."""

    change = serializers.ChoiceField(choices=("add", "change", "remove"))
    what = serializers.ChoiceField(choices=("role", "rule", "limit", "audit"))
    label = serializers.CharField()  # type: ignore[assignment]
    before = serializers.JSONField(allow_null=True)
    after = serializers.JSONField(allow_null=True)


class Applied(Output):
    """What applying a policy changed, or would change."""

    changed = serializers.BooleanField()
    dry_run = serializers.BooleanField()
    policy_version = serializers.IntegerField()
    changes = Change(many=True)
    diff = serializers.CharField(help_text="The difference of the two documents, line by line.")


class Checked(Output):
    """What is in a valid policy."""

    valid = serializers.BooleanField()
    roles = serializers.IntegerField()
    rules = serializers.IntegerField()
    limits = serializers.IntegerField()
    audit = serializers.IntegerField()


class Version(Output):
    """One version of the policy, without its text."""

    version = serializers.IntegerField()
    at = serializers.DateTimeField()
    author = serializers.CharField()
    origin = serializers.CharField()


class WholeVersion(Version):
    """One version of the policy."""

    document = serializers.CharField()
    diff = serializers.CharField(help_text="What it changed.")


class Question(Strict):
    """A call that somebody asks about; nothing is executed."""

    key = Char(required=False, allow_null=True, max_length=100, help_text="A key: its id, prefix or name.")
    role = Char(required=False, allow_null=True, **ROLE, help_text="Any key of this role, in place of a key.")
    kind = Choice(choices=vocabulary.KINDS, required=False, default="tool")
    upstream = Char(required=False, allow_blank=True, max_length=63, default="")
    name = Char(max_length=1024, help_text="The tool's, prompt's or resource's name, or the method's.")
    arguments = serializers.JSONField(
        required=False, help_text="The call's arguments, an object; not given: none are sent."
    )
    annotations = serializers.JSONField(
        required=False, allow_null=True, help_text="The tool's annotations; not given: as listed."
    )
    client_ip = serializers.IPAddressField(required=False, allow_null=True)
    at = Moment(required=False, allow_null=True, help_text="Not given: now.")


class RuleReference(Output):
    """A rule as events name it."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    effect = serializers.ChoiceField(choices=vocabulary.EFFECTS)


class SettledBy(RuleReference):
    """The rule that settled it."""

    label = serializers.CharField()  # type: ignore[assignment]


class Near(Output):
    """A rule that came close, and what kept it from matching."""

    rule = RuleReference()
    label = serializers.CharField()  # type: ignore[assignment]
    why = serializers.ListField(child=serializers.CharField())


class Counted(Output):
    """A limit that counts such a call."""

    id = serializers.IntegerField()
    label = serializers.CharField()  # type: ignore[assignment]
    requests = serializers.IntegerField()
    window_seconds = serializers.IntegerField()
    per = serializers.ListField(child=serializers.CharField())


class Explanation(Output):
    """The gateway's own decision, and everything around it."""

    allowed = serializers.BooleanField()
    reason = serializers.CharField()
    rule = SettledBy(allow_null=True)
    message = serializers.CharField(help_text="What the caller would be told.")
    policy_version = serializers.IntegerField()
    listed = serializers.BooleanField(help_text="Whether a list would show it.")
    example = serializers.JSONField(
        allow_null=True, help_text="Arguments that would be allowed, where some were found."
    )
    errors = RuleReference(many=True)  # type: ignore[assignment]
    observed = serializers.ListField(child=serializers.CharField())
    near = Near(many=True)
    limits = Counted(many=True)
    audit_level = serializers.CharField(allow_null=True)
    notes = serializers.ListField(child=serializers.CharField(), help_text="What should be said of the key itself.")


class ReplayRequest(Strict):
    """A draft policy to try on past events."""

    document = Char(max_length=4_000_000, allow_blank=True, help_text="The policy in YAML.")
    since = Moment(required=False, help_text="Not given: seven days ago.")
    until = Moment(required=False, allow_null=True, help_text="Not given: now.")


class Replayed(Output):
    """Events that would be decided otherwise, of one kind."""

    key_prefix = serializers.CharField()
    key_name = serializers.CharField()
    role = serializers.CharField()
    upstream = serializers.CharField()
    kind = serializers.CharField()
    name = serializers.CharField()
    to = serializers.ChoiceField(choices=("allowed", "denied"))
    reason = serializers.CharField()
    rule = serializers.CharField()
    count = serializers.IntegerField()
    examples = serializers.ListField(child=serializers.CharField(), help_text="Ids of events.")

    def get_fields(self) -> dict[str, Any]:
        """Add the member whose name is a word of Python."""
        return super().get_fields() | {"from": serializers.ChoiceField(choices=("allowed", "denied"))}


class ReplayReport(Output):
    """What a replay found."""

    decided = serializers.IntegerField()
    changed = serializers.IntegerField()
    undecidable = serializers.IntegerField()
    newly_denied = serializers.IntegerField()
    newly_allowed = serializers.IntegerField()
    undecidable_because = serializers.DictField(child=serializers.IntegerField())
    groups = Replayed(many=True)


class Replay(Output):
    """A replay, and how far it is."""

    id = serializers.UUIDField()
    state = serializers.ChoiceField(choices=("waiting", "running", "done", "failed"))
    progress = serializers.FloatField(help_text="From 0 to 1.")
    created_at = serializers.DateTimeField()
    created_by = serializers.CharField()
    since = serializers.DateTimeField()
    until = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)
    error = serializers.CharField()
    report = ReplayReport(allow_null=True)
