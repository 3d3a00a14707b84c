"""Events for programs: pages both ways, one by one, and all as a stream."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any
from uuid import UUID

from django.db import transaction
from django.http import HttpResponseBase, QueryDict
from rest_framework.request import Request
from rest_framework.response import Response

from audit.api.serializers import EventSerializer
from audit.events import act_kinds
from audit.export import stream
from audit.export.formats import FIELDS, column, exported, moment
from audit.filters import FIELDS as FILTERS
from audit.filters import PRESETS, Filters
from audit.models import AuditEvent, OpenCall, Outcome
from audit.search import search
from audit.services.acts import record_act
from core.access import sessions
from core.api.problems import Problem, invalid, wrong
from core.api.views import FIELDS as ONLY
from core.api.views import LIMIT, ApiView, Operation, Parameter, actor_of, named

BUDGET_MS = 1000.0
PAYLOADS = ("request_json", "response_json")

# The names that events have themselves are understood as well as those of the admin's addresses.
ALSO = {
    "api_key_id": "key", "key_prefix": "prefix", "tool_name": "tool", "status_code": "status", "auth_method": "auth",
    "client_ip": "ip", "rpc_id": "rpc",
}  # fmt: skip
WORDS = {
    "key": "Made with this key: its id, its prefix, or its name, now or when the event was recorded.",
    "rule": "Settled by the rule of this id.",
    "slower": "Took longer than so many milliseconds.",
    "session": "Of this session, as events name it.",
    "act": "Acts of administrators: those that `changed` something, `accessed` (log-ins, looks, exports), were `refused`; `none`: requests "
    "only; `quiet`: all but those of access.",
    "tool_error": "`true`: the tool or the upstream itself said that it failed; `false`: neither did.",
    "rpc": "With this JSON-RPC id, as JSON text.",
}
CHOICES = {"outcome": tuple(Outcome.values), "tool_error": ("true", "false"), "act": tuple(act_kinds.KINDS)}

FILTER = (
    Parameter(name="range", description="The last so much time.", choices=tuple(word for word in PRESETS if word)),
    Parameter(name="from", description="Started at or after this moment.", kind="date-time"),
    Parameter(name="to", description="Started before this moment.", kind="date-time"),
    *(
        Parameter(
            name=name,
            description=WORDS.get(name, f"With this {label}; several are alternatives."),
            many=True,
            choices=CHOICES.get(name, ()),
        )
        for name, (label, _) in FILTERS.items()
    ),
    *(Parameter(name=name, description=f"The same as `{same}`.", many=True) for name, same in ALSO.items()),
    Parameter(name="q", description="With this text in its names, reason or ids, whatever its case.", longest=200),
)
INCLUDE = Parameter(
    name="include",
    description="`payloads`: arguments and results too; needs the permission audit.view_payload, and is an event.",
    choices=("payloads",),
)


class Events(ApiView):
    """The log, newest first."""

    operations = {
        "get": Operation(
            id="listEvents",
            tag="events",
            summary="Page through the events",
            description="Newest first. `next` leads to older events, `previous` to newer ones; both stay good while new "
            "events arrive. A search that nothing is indexed for looks for about a second: a page may then hold fewer events "
            "than asked for, `searched_to` says how far it looked, and `next` goes on from there.",
            permissions=("audit.view_auditevent",),
            query=(
                LIMIT,
                Parameter(name="before", description="Older than this event; see `next`.", kind="uuid"),
                Parameter(name="after", description="Newer than this event; see `previous`.", kind="uuid"),
                *FILTER,
                INCLUDE,
                ONLY,
            ),
            response=EventSerializer,
            page=True,
        )
    }

    def get(self, request: Request) -> Response:
        payloads = self.query.get("include") == "payloads"
        if payloads:
            self.demand("audit.view_payload")
        before, after = self.query.get("before"), self.query.get("after")
        if before is not None and after is not None:
            raise invalid(wrong("after", "Give one of the two."), detail="Give before or after, not both.")
        filters = read_filters(self.query)
        found = search(filters, before=before, after=after, limit=self.query["limit"], budget_ms=BUDGET_MS)
        ids = [row.id for row in found.rows]
        events = {
            event["id"]: event for event in read(ids, payloads=payloads, only=named(self.query.get("fields", "")))
        }
        if payloads and ids:
            tell(request, ids, filters.describe())
        older, newer = found.older, found.newer
        if after is not None and not ids:
            older = UUID(int=after.int + 1)  # so that the event `after` itself is on the page that follows
        response = self.many(
            [events[str(id_)] for id_ in ids if str(id_) in events], next=older, previous=newer, older="before"
        )
        response.data["searched_to"] = moment(found.searched_to)
        return response


class OneEvent(ApiView):
    """One event."""

    operations = {
        "get": Operation(
            id="getEvent",
            tag="events",
            summary="Read one event",
            permissions=("audit.view_auditevent",),
            query=(INCLUDE, ONLY),
            response=EventSerializer,
            problems=(404,),
        )
    }

    def get(self, request: Request, event: UUID) -> Response:
        payloads = self.query.get("include") == "payloads"
        if payloads:
            self.demand("audit.view_payload")
        found = list(read([event], payloads=payloads))
        if not found:
            if OpenCall.objects.filter(pk=event).exists():
                raise Problem("still_running", "This call has begun and not ended; its event is stored when it ends.")
            raise Problem("not_found", "There is no such event; it may have been dropped by age.")
        if payloads:
            tell(request, [event], {})
        return self.one(found[0], tag=False)


class EventExport(ApiView):
    """All events of a filter, as a stream."""

    operations = {
        "get": Operation(
            id="exportEvents",
            tag="events",
            summary="Take events out as a stream",
            description="Oldest first, with arguments and results, in constant memory. Beginning and end are events. Line by "
            "line as `manage.py audit export` writes them.",
            permissions=stream.PERMISSIONS,
            query=(
                Parameter(name="format", description="The form.", choices=tuple(stream.FORMATS), default="ndjson"),
                *FILTER,
            ),
            streams=("application/x-ndjson", "text/csv"),
        )
    }

    def get(self, request: Request) -> HttpResponseBase:
        filters = read_filters(self.query)
        user: Any = request.user
        stands = (
            sessions.Standing(user.stands)
            if hasattr(user, "stands")
            else sessions.of_request(request._request, stream.PERMISSIONS)
        )
        return stream.stream(request._request, filters, self.query["format"], actor_of(request), stands)


def read_filters(query: dict[str, Any]) -> Filters:
    """Read the conditions; what cannot be understood is refused."""
    asked = QueryDict(mutable=True)
    for name, value in query.items():
        if name in ("from", "to"):
            asked[name] = value.isoformat()
        elif name in ("range", "q"):
            asked[name] = value
        elif name in FILTERS or name in ALSO:
            for one in value:
                asked.appendlist(ALSO.get(name, name), one)
    if "from" in query and "to" in query and query["from"] >= query["to"]:
        raise invalid(wrong("to", "It is after `from`."), detail="The start lies after the end.")
    if asked.get("range") and ("from" in asked or "to" in asked):
        raise invalid(wrong("range", "Give this or from and to."), detail="Give a range, or from and to.")
    filters = Filters.read(asked)
    if filters.problems:
        raise invalid(*(wrong("", words) for words in filters.problems))
    return filters


def read(ids: list[UUID], *, payloads: bool, only: Collection[str] = ()) -> Iterable[dict[str, Any]]:
    """Read events in their exported form, with arguments and results only where they are asked for; whole, or `only` some
    members: what a page leaves out is most of the work of reading it.
    """
    wanted = {"id", "boot", *only} if only else {*FIELDS}
    names = [name for name in FIELDS if name in wanted and (payloads or name not in PAYLOADS)]
    columns = map(column, names)
    lacking = dict.fromkeys(FIELDS)
    for values in AuditEvent.objects.filter(pk__in=ids).values_list(*columns):
        event = exported({**lacking, **dict(zip(names, values, strict=True))})
        yield {name: event[name] for name in names}


def tell(request: Request, ids: list[UUID], filters: dict[str, Any]) -> None:
    """Leave the event of a look at arguments and results."""
    looked = {"first": str(ids[0]), "last": str(ids[-1]), "count": len(ids), "filter": filters}
    with transaction.atomic():
        target = str(ids[0]) if len(ids) == 1 else ""
        record_act(method="admin.payloads.viewed", actor=actor_of(request), target=target, details=looked)
