"""Forms take the plain members of rules and limits from the tables of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, TypeVar

from django import forms
from django.forms.boundfield import BoundField

from policies import members
from policies.members import REQUIRED, Member

__all__ = ["SpecForm", "takes"]


class SpecForm(forms.Form):
    """A form with the plain members of a table; its page shows them by their kind, but for those that it places itself."""

    table: ClassVar[tuple[Member, ...]] = ()
    placed: ClassVar[frozenset[str]] = frozenset()

    def texts(self) -> Iterator[BoundField]:
        """What is typed, and is no number."""
        return self._shown(members.TextMember)

    def numbers(self) -> Iterator[BoundField]:
        return self._shown(members.WholeMember)

    def flags(self) -> Iterator[BoundField]:
        return self._shown(members.Flag)

    def _shown(self, kind: type[Member]) -> Iterator[BoundField]:
        return (self[row.name] for row in self.table if isinstance(row, kind) and row.name not in self.placed)

    def plain(self) -> dict[str, Any]:
        return {row.name: row.take(self.cleaned_data[row.name]) for row in self.table}


F = TypeVar("F", bound=type[SpecForm])


def takes(table: tuple[Member, ...]) -> Callable[[F], F]:
    """Let a form have the plain members of a table."""

    def complete(form: F) -> F:
        form.table = table
        form.base_fields = {**{row.name: _field(row) for row in table}, **form.base_fields}
        return form

    return complete


def _field(row: Member) -> forms.Field:
    more: dict[str, Any] = {"required": row.default is REQUIRED, "label": row.label, "help_text": row.hint}
    match row:
        case members.TextMember():
            return forms.CharField(max_length=row.most, **more)
        case members.WholeMember():
            return forms.IntegerField(min_value=1, max_value=row.most, initial=row.start, **more)
        case members.Word() | members.Words():
            choices = [(word, word) for word in row.words]
            if isinstance(row, members.Words):
                return forms.MultipleChoiceField(choices=choices, widget=forms.CheckboxSelectMultiple, **more)
            return forms.ChoiceField(choices=choices, widget=forms.RadioSelect, initial=row.words[0], **more)
    return forms.BooleanField(initial=row.default, **more)
