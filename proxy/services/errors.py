"""What an act upon upstreams that is refused raises, and how one is found to act upon."""

from __future__ import annotations

from proxy.models import Upstream


class ServiceError(Exception):
    """An act that was refused: which field, and a sentence that says what to mend."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.field = field


def locked(slug: str) -> Upstream:
    """Find an upstream and hold it until the transaction ends; raises ServiceError."""
    try:
        return Upstream.objects.select_for_update().get(slug=slug)
    except Upstream.DoesNotExist:
        raise ServiceError(f"There is no upstream {slug}.", "slug") from None
