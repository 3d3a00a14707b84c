"""The people who use the admin."""

from __future__ import annotations

from django.contrib.auth.models import AbstractUser
from django.db import models


class User(AbstractUser):
    """A person who logs in to the admin."""

    time_zone = models.CharField(max_length=64, default="UTC")
    theme = models.CharField(
        max_length=8, default="auto", choices=[("auto", "As the system"), ("light", "Light"), ("dark", "Dark")]
    )
    external_subject = models.CharField(max_length=255, null=True, blank=True, unique=True)
