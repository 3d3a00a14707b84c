"""What the forms of keys, roles, rules and limits share."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from core.api.fields import Network, Pattern
from policies import vocabulary

__all__ = ["ROLE", "Output", "networks", "slugs"]

Output = serializers.Serializer[Any]
ROLE: dict[str, Any] = {"max_length": 64}


def slugs(**kwargs: Any) -> serializers.ListField:
    """Take names of upstreams."""
    return serializers.ListField(child=Pattern(vocabulary.SLUG, max_length=63), max_length=200, **kwargs)


def networks(**kwargs: Any) -> serializers.ListField:
    """Take networks."""
    return serializers.ListField(child=Network(), max_length=200, **kwargs)
