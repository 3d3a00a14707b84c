"""What the forms of keys, roles, rules and limits share, and how they follow from the tables of plain members."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, time
from typing import Any, TypeVar

from rest_framework import serializers

from audit.export.formats import moment
from core.api.fields import Bool, Char, Choice, Network, Pattern, Strict, WholeNumber
from policies import members, vocabulary
from policies.members import REQUIRED, Member
from policies.specs import listed

__all__ = ["ROLE", "Output", "answers", "networks", "shown", "slugs", "takes"]

Output = serializers.Serializer[Any]
ROLE: dict[str, Any] = {"max_length": 64}
S = TypeVar("S", bound=type[Any])


def slugs(**kwargs: Any) -> serializers.ListField:
    return serializers.ListField(child=Pattern(vocabulary.SLUG, max_length=63), max_length=200, **kwargs)


def networks(**kwargs: Any) -> serializers.ListField:
    return serializers.ListField(child=Network(), max_length=200, **kwargs)


def takes(table: tuple[Member, ...], *first: str) -> Callable[[S], S]:
    """Let a form of a request take the plain members of a table, too; `first` says what stands in front."""

    def complete(form: S) -> S:
        form._declared_fields = _ordered(form._declared_fields | {row.name: _field(row) for row in table}, first)
        return form

    return complete


def _field(row: Member) -> serializers.Field[Any, Any, Any, Any]:
    more: dict[str, Any] = {"required": row.default is REQUIRED}
    if row.about:
        more["help_text"] = row.about
    match row:
        case members.TextMember():
            return Char(allow_blank=True, max_length=row.most, **more)
        case members.WholeMember():
            return WholeNumber(min_value=1, max_value=row.most, allow_null=row.default is None, **more)
        case members.Word():
            return Choice(choices=row.words, **more)
        case members.Words():
            return serializers.ListField(child=Choice(choices=row.words), max_length=len(row.words), **more)
    return Bool(**more)


def answers(change: type[Strict], *first: str) -> Callable[[S], S]:
    """Let an answer have all that a request may say of a thing, beside what it has itself."""

    def complete(form: S) -> S:
        asked = {name: _answered(field) for name, field in change._declared_fields.items()}
        form._declared_fields = _ordered(asked | form._declared_fields, first)
        return form

    return complete


def _ordered(members: dict[str, Any], first: tuple[str, ...]) -> dict[str, Any]:
    return {name: members[name] for name in dict.fromkeys((*first, *members))}


def _answered(field: Any) -> serializers.Field[Any, Any, Any, Any]:
    """A member as it is answered: of the same type, and always there."""
    more: dict[str, Any] = {"allow_null": True} if field.allow_null else {}
    if isinstance(field, serializers.ListField):
        return serializers.ListField(child=_answered(field.child), **more)
    if isinstance(field, serializers.ChoiceField):
        return serializers.ChoiceField(choices=tuple(field.choices), **more)
    kinds = (serializers.IntegerField, serializers.BooleanField, serializers.DateTimeField, serializers.JSONField)
    return next((kind for kind in kinds if isinstance(field, kind)), serializers.CharField)(**more)


def shown(spec: Any, form: type[Strict]) -> dict[str, Any]:
    """A spec in the members of the form that would make it so."""
    return {name: _shown(getattr(spec, name), field) for name, field in form._declared_fields.items()}


def _shown(value: Any, field: Any) -> Any:
    if isinstance(field, serializers.ListSerializer):
        one: Any = field.child
        return [shown(item, type(one)) for item in value]
    if isinstance(field, Strict):
        return shown(value, type(field))
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, time):
        return value.isoformat()
    if value == "" and field.allow_null and not isinstance(field, serializers.JSONField):
        return None
    return listed(value)
