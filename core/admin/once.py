"""What is shown once: on the page that follows the act that made it, sealed on the way there and gone afterwards.

A page that an act itself answers with would make a second one when it is loaded again.
"""

from __future__ import annotations

import base64
import json
import os
import time
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings
from django.http import HttpRequest
from django.utils.crypto import salted_hmac

__all__ = ["keep", "take"]

LASTS = 300.0  # seconds


def keep(request: HttpRequest, name: str, value: Any) -> None:
    """Seal a value for the next page of this session."""
    nonce = os.urandom(12)
    plain = json.dumps([time.time(), value]).encode()
    sealed = nonce + _cipher().encrypt(nonce, plain, _place(request, name))
    request.session[f"once_{name}"] = base64.b64encode(sealed).decode()


def take(request: HttpRequest, name: str) -> Any:
    """Return the value, and forget it; None where there is none any more."""
    sealed = request.session.pop(f"once_{name}", None)
    if not isinstance(sealed, str):
        return None
    try:
        raw = base64.b64decode(sealed, validate=True)
        made, value = json.loads(_cipher().decrypt(raw[:12], raw[12:], _place(request, name)))
    except (InvalidTag, ValueError):
        return None
    return value if 0 <= time.time() - made < LASTS else None


def _place(request: HttpRequest, name: str) -> bytes:
    return f"{name} {request.user.pk}".encode()


def _cipher() -> AESGCM:
    return AESGCM(salted_hmac("audit.once", "session", secret=settings.SECRET_KEY, algorithm="sha256").digest())
