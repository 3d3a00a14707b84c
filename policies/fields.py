"""A column for an IP network, checked by PostgreSQL itself."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError
from django.db import models

if TYPE_CHECKING:
    _Field = models.Field[Any, str]
else:
    _Field = models.Field


class NetworkField(_Field):
    """An IPv4 or IPv6 network, a string such as `10.0.0.0/8` in Python and `cidr` in PostgreSQL."""

    description = "IP network"

    def db_type(self, connection: Any) -> str:
        """Name the column's type."""
        return "cidr"

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> str | None:
        """Give what is stored as text."""
        return None if value is None else str(value)

    def to_python(self, value: Any) -> str | None:
        """Accept text or a network, refuse host bits and anything else."""
        if value is None or value == "":
            return None
        if isinstance(value, IPv4Network | IPv6Network):
            return str(value)
        try:
            return str(ip_network(str(value).strip()))
        except ValueError as error:
            raise ValidationError(f"{value!s:.60} is not an IP network: {error}") from error

    def get_prep_value(self, value: Any) -> str | None:
        """Give PostgreSQL the canonical text."""
        return self.to_python(value)

    def formfield(self, **kwargs: Any) -> Any:
        """Be a line of text in a form."""
        return super().formfield(**{"form_class": forms.CharField, **kwargs})
