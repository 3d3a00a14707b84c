"""The base of every model's pages in the admin, typed for the checker and plain for Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin

__all__ = ["Pages"]

if TYPE_CHECKING:

    class Pages(admin.ModelAdmin[Any]):
        """A model's pages."""

else:
    Pages = admin.ModelAdmin
