"""Ids in addresses."""

from __future__ import annotations

from django.urls import register_converter
from django.urls.converters import IntConverter


class IdConverter(IntConverter):
    """A row's number, as far as rows can have one."""

    regex = "[0-9]{1,18}"


register_converter(IdConverter, "id")
