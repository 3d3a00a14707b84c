"""The people who use the admin."""

from __future__ import annotations

from django.contrib.auth.models import AbstractUser
from django.contrib.postgres.fields import ArrayField
from django.db import models


class User(AbstractUser):
    """A person who logs in to the admin."""

    time_zone = models.CharField(max_length=64, default="UTC")
    theme = models.CharField(
        max_length=8, default="auto", choices=[("auto", "As the system"), ("light", "Light"), ("dark", "Dark")]
    )
    external_subject = models.CharField(max_length=255, null=True, blank=True, unique=True)


class RecoveryCode(models.Model):
    """One of the codes that let somebody in once without their authenticator; only its digest is kept."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="recovery_codes")
    digest = models.CharField(max_length=64)
    used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "digest"], name="sentinel_recovery_code_once")]

    def __str__(self) -> str:
        return f"recovery code {self.pk}"


class SavedView(models.Model):
    """A view of the log that somebody comes back to: a name and the conditions, as the query that they are."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="saved_views")
    name = models.CharField(max_length=80)
    query = models.CharField(max_length=4000, blank=True, default="")

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["user", "name"], name="sentinel_view_name_once")]

    def __str__(self) -> str:
        return self.name


class OverviewSlot(models.Model):
    """A quarter of an hour of the rollups, summed once by tool, key, upstream and reason, so that a week is read at once.

    Of kind `latency`, `counts` holds bucket, number, least and most (audit.drain.latencies), one bucket after the other.
    A trigger on the rollups forgets a slot when late events arrive for it; the next look sums it again.
    """

    slot = models.DateTimeField()
    kind = models.CharField(max_length=10)
    name = models.TextField()
    label = models.TextField(default="")
    outcome = models.CharField(max_length=20, default="")
    requests = models.BigIntegerField(default=0)
    errors = models.BigIntegerField(default=0)
    tool_errors = models.BigIntegerField(db_default=0)
    timed = models.BigIntegerField(default=0)
    counts = ArrayField(models.BigIntegerField(), default=list)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["slot", "kind", "name", "outcome"], name="sentinel_one_sum_per_slot")
        ]

    def __str__(self) -> str:
        return f"{self.slot} {self.kind} {self.name}"
