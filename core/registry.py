"""What a package asks without knowing who answers: arrows point down, questions go up.

Every question stands here, with its types. Whoever knows the answer gives it once, in the `ready` of its application:

    registry.saved_views.answered_by(saved_views)       in sentinel, which keeps them
    registry.saved_views(request.user)                  in audit, which shows them

A question that nobody answers raises `Unanswered`: a gateway without second factors or without a catalogue would otherwise be
one that was put together wrongly, and does not say so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, ParamSpec, TypeVar

from django.http import HttpRequest
from django.urls import reverse

P = ParamSpec("P")
R = TypeVar("R")


class Unanswered(LookupError):
    """Nobody has said that it knows."""


class Question(Generic[P, R]):
    """Something that one package asks and another knows."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._answer: Callable[P, R] | None = None

    def answered_by(self, answer: Callable[P, R]) -> None:
        """Say who answers it from now on."""
        self._answer = answer

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if self._answer is None:
            raise Unanswered(f"no application answers {self.what}")
        return self._answer(*args, **kwargs)


def page(address: str, permission: str = "") -> Callable[..., str]:
    """Answer with the address of a page: of a view by its name, or of a path with `{}` for what the page is about.

    It is asked with whoever is to be shown the link, and is "" for them when they lack the permission.
    """

    def link(*about: object, user: Any = None) -> str:
        if permission and not (user and user.has_perm(permission)):
            return ""
        return address.format(*about) if address.startswith("/") else reverse(address, args=about)

    return link


# Who is there, and what they have shown

asks_code: Question[[Any], bool] = Question("whether a log-in asks a person for a second factor")
give_code: Question[[HttpRequest, str], str] = Question("what is wrong with a code of the second factor")
session_stands: Question[[str, Sequence[str]], bool] = Question("whether a session is still good for some permissions")
saved_views: Question[[Any], list[tuple[str, str, int]]] = Question("a person's views of the log: (name, query, id)")

# What other packages keep

suggestions: Question[[], dict[str, list[tuple[str, str]]]] = Question("what filters may be filled with, by parameter")
keys_named: Question[[Sequence[str]], list[tuple[str, str, str]]] = Question(
    "which keys have one of these names or prefixes: (id, name, prefix)"
)
known_tools: Question[[int], list[tuple[str, str, Any, bool]]] = Question(
    "which tools upstreams list, at most so many: (upstream, tool, annotations, waits for approval)"
)

# Where pages and addresses of other packages are

api: Question[..., str] = Question("where the REST API begins")
api_problem: Question[..., str] = Question("where a code of the REST API's problems is explained")
endpoint: Question[..., str] = Question("where agents reach an upstream")
explain_page: Question[..., str] = Question("where decisions are explained")
key_page: Question[..., str] = Question("where a key is shown")
new_key_page: Question[..., str] = Question("where a key is made")
save_view_page: Question[..., str] = Question("where a view of the log is saved")
upstreams_page: Question[..., str] = Question("where upstreams are listed")
