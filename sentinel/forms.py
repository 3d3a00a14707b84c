"""The forms of the people pages."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth import get_user_model, password_validation
from django.contrib.auth.forms import UsernameField

from core.access.duties import DUTIES
from core.admin.zones import ZoneField


class PersonForm(forms.ModelForm):  # type: ignore[type-arg]
    """A person, the duties they have, and whether they may log in."""

    duties = forms.MultipleChoiceField(required=False, widget=forms.CheckboxSelectMultiple)
    time_zone = ZoneField()

    class Meta:
        model = get_user_model()
        fields = ("username", "first_name", "last_name", "email", "time_zone", "is_active")
        field_classes = {"username": UsernameField}

    def __init__(self, *args: Any, grantable: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.held = set(self.instance.groups.values_list("name", flat=True)) if self.instance.pk else set()
        # What somebody may not grant they may not take away either: those duties are shown elsewhere and stay.
        fields: Any = self.fields
        fields["duties"].choices = [(name, name) for name in DUTIES if name in grantable]
        self.kept = self.held - set(grantable)
        self.initial["duties"] = sorted(self.held & set(grantable))

    def chosen(self) -> list[str]:
        """Return the names of all duties that the person has from now on."""
        return sorted(self.kept | set(self.cleaned_data["duties"]))


class NewPersonForm(PersonForm):
    """A new person, with a first password."""

    password = forms.CharField(
        strip=False, widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}), label="First password"
    )

    def clean_password(self) -> str:
        password: str = self.cleaned_data["password"]
        password_validation.validate_password(password, self.instance)
        return password
