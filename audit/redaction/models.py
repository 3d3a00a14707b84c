"""What administrators ask to have redacted, as it is stored."""

from __future__ import annotations

from typing import ClassVar

from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from audit.redaction import rules
from audit.redaction.detect.pii import KINDS as PERSONAL

__all__ = ["RedactionRule"]


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
