"""Resources: things that are listed, read, added, changed and removed one by one, each described once.

A resource says how its things are found, shown and acted upon; the two addresses of each, with their operations, follow from it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from django.db import transaction
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from core.access.actors import Actor
from core.api.fields import read
from core.api.views import FIELDS, ApiView, Operation, Parameter, actor_of, paging

__all__ = ["Many", "One", "Resource"]


class Resource(ABC):
    """One kind of thing: `words` name one ("a rule") and `plural` all of them, `name` and `names` do so in ids of operations."""

    name: ClassVar[str]
    names: ClassVar[str]
    words: ClassVar[str]
    plural: ClassVar[str]
    tag: ClassVar[str]
    #: the model whose permissions are asked for, such as `policies.rule`
    model: ClassVar[str]
    #: what a request may say, all of it when one is added and any of it when one is changed
    change: ClassVar[type[serializers.Serializer[Any]]]
    answer: ClassVar[type[serializers.Serializer[Any]]]
    #: parameters of the list beside those of every list
    query: ClassVar[tuple[Parameter, ...]] = ()
    #: members that no ETag covers
    volatile: ClassVar[frozenset[str]] = frozenset()
    #: more words about an operation, by its verb
    about: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def all(self, query: Mapping[str, Any]) -> Any:
        """Return those that a list shows, a queryset or a sequence."""

    @abstractmethod
    def find(self, pk: int, *, lock: bool = False) -> Any:
        """Return one, or say that there is none; locked, nobody changes it until the transaction ends."""

    @abstractmethod
    def shown(self, thing: Any) -> dict[str, Any]:
        """Return one as it is answered."""

    @abstractmethod
    def add(self, asked: dict[str, Any], actor: Actor) -> int:
        """Add one; return its id."""

    @abstractmethod
    def update(self, thing: Any, asked: dict[str, Any], actor: Actor) -> None:
        """Change one, which was found locked."""

    @abstractmethod
    def remove(self, thing: Any, actor: Actor) -> None:
        """Remove one, which was found locked."""

    def operations(self) -> tuple[dict[str, Operation], dict[str, Operation]]:
        """Return the operations of the list and of one of its things."""
        app, _, model = self.model.partition(".")

        def made(verb: str, act: str, summary: str, **more: Any) -> Operation:
            ident = f"{verb}{self.names if more.get('page') else self.name}"
            permissions, words = (f"{app}.{act}_{model}",), self.about.get(verb, "")
            return Operation(
                id=ident, tag=self.tag, summary=summary, description=words, permissions=permissions, **more
            )

        body: dict[str, Any] = {"request": self.change, "response": self.answer}
        present: dict[str, Any] = {"problems": (404, 409), "conditional": True}
        many = {
            "get": made(
                "list", "view", f"List {self.plural}", query=(*paging(), *self.query), response=self.answer, page=True
            ),
            "post": made("create", "add", f"Add {self.words}", status=201, creates=True, **body),
        }
        one = {
            "get": made("get", "view", f"Read {self.words}", query=(FIELDS,), response=self.answer, problems=(404,)),
            "patch": made("change", "change", f"Change {self.words}", **body, **present),
            "delete": made("delete", "delete", f"Delete {self.words}", status=204, **present),
        }
        return many, one

    def views(self, once: Callable[[Request, Callable[[], Response]], Response]) -> tuple[Any, Any]:
        """Return the views of the two addresses; `once` does a creation once for each Idempotency-Key."""
        many, one = self.operations()
        both: dict[str, Any] = {"resource": self, "volatile": self.volatile}
        return (
            Many.as_view(operations=many, once=once, **both),
            One.as_view(operations=one, **both),
        )


class Many(ApiView):
    """All things of one kind."""

    resource: Resource = NotImplemented  #: given by `Resource.views`
    once: Any = None

    def get(self, request: Request) -> Response:
        return self.page_of(self.resource.all(self.query), self.resource.shown)

    def post(self, request: Request) -> Response:
        asked = read(self.resource.change, request.data)

        def act() -> Response:
            pk = self.resource.add(asked, actor_of(request))
            return self.made(self.resource.shown(self.resource.find(pk)), pk)

        answer: Response = self.once(request, act)
        return answer


class One(ApiView):
    """One thing."""

    resource: Resource = NotImplemented  #: given by `Resource.views`

    def get(self, request: Request, pk: int) -> Response:
        return self.one(self.resource.shown(self.resource.find(pk)))

    def _present(self, pk: int) -> Any:
        thing = self.resource.find(pk, lock=True)
        self.check_match(self.resource.shown(thing))
        return thing

    @transaction.atomic
    def patch(self, request: Request, pk: int) -> Response:
        """Change it in place; its id stays."""
        asked = read(self.resource.change, request.data, partial=True)
        self.resource.update(self._present(pk), asked, actor_of(request))
        return self.one(self.resource.shown(self.resource.find(pk)))

    @transaction.atomic
    def delete(self, request: Request, pk: int) -> Response:
        self.resource.remove(self._present(pk), actor_of(request))
        return Response(status=204)
