"""Plays with the client that a generator made of the description: it knows nothing else of the API.

Standard input says where the API is and with which key; the last line of standard output says what was found. What the client
gives is of its own classes, so that a description that does not say the truth fails here.
"""

from __future__ import annotations

import datetime
import json
import sys
from uuid import UUID

from sentinel_client import AuthenticatedClient
from sentinel_client.api.events import list_events
from sentinel_client.api.keys import change_key, create_key, get_key, list_keys, revoke_key
from sentinel_client.api.policy import check_policy, explain_policy
from sentinel_client.api.roles import create_role, delete_role, list_roles
from sentinel_client.models import (
    Draft,
    Event,
    Key,
    KeyCreation,
    ListEventsInclude,
    NewKey,
    PatchedKeyChange,
    Problem,
    ProblemCode,
    Question,
    Revocation,
    RoleChange,
)


def keys(client: AuthenticatedClient) -> UUID:
    """Make a key, change it under its ETag, lose against somebody who was faster, end it."""
    wanted = KeyCreation(name="by a generated client", role="user")
    made = create_key.sync(client=client, body=wanted, idempotency_key="generated-1")
    assert isinstance(made, NewKey) and made.key and made.key.startswith("mcps_live_"), made
    assert isinstance(made.id, UUID) and isinstance(made.created_at, datetime.datetime) and made.expires_at is None
    again = create_key.sync(client=client, body=wanted, idempotency_key="generated-1")
    assert isinstance(again, NewKey) and again.id == made.id and again.key is None and again.key_already_shown
    answer = get_key.sync_detailed(made.id, client=client)
    tag = answer.headers["ETag"]
    assert isinstance(answer.parsed, Key) and answer.parsed.name == made.name
    change = PatchedKeyChange(owner="somebody")
    changed = change_key.sync(made.id, client=client, body=change, if_match=tag)
    assert isinstance(changed, Key) and changed.owner == "somebody"
    late = change_key.sync(made.id, client=client, body=PatchedKeyChange(owner="another"), if_match=tag)
    assert isinstance(late, Problem) and late.code is ProblemCode.PRECONDITION_FAILED and late.status == 412
    ended = revoke_key.sync(made.id, client=client, body=Revocation(reason="it was a test"))
    assert isinstance(ended, Key) and ended.state.value == "revoked" and ended.revoked_at
    assert any(key.id == made.id for key in list_keys.sync(client=client, limit=1000).results)
    return made.id


def problems(client: AuthenticatedClient) -> None:
    """What is refused comes as a problem with its code, its places, its page."""
    refused = create_key.sync(client=client, body=KeyCreation(name="x", role="user", duty="viewer"))
    assert isinstance(refused, Problem) and refused.code is ProblemCode.INVALID and refused.errors[0].field == "role"
    assert refused.type_.endswith("#problem-invalid")
    gone = get_key.sync(UUID(int=7), client=client)
    assert isinstance(gone, Problem) and gone.code is ProblemCode.NOT_FOUND
    stranger = AuthenticatedClient(base_url=client._base_url, token="mcps_live_nonsense")
    unknown = list_events.sync(client=stranger)
    assert isinstance(unknown, Problem) and unknown.status == 401


def events(client: AuthenticatedClient) -> int:
    """Read all events, page by page, in order; then some with their payloads."""
    seen: list[UUID] = []
    before = None
    while True:
        page = list_events.sync(client=client, limit=3, **({"before": before} if before else {}))
        assert page is not None and not isinstance(page, Problem), page
        for event in page.results:
            assert isinstance(event, Event) and isinstance(event.ts, datetime.datetime), event
            seen.append(event.id)
        if not page.next_:
            break
        before = seen[-1]
    assert seen == sorted(set(seen), reverse=True), "an event twice, or out of order"
    page = list_events.sync(client=client, include=ListEventsInclude.PAYLOADS, tool=["list_customers"], limit=1)
    assert page is not None and not isinstance(page, Problem) and page.results[0].request_json["method"] == "tools/call"
    return len(seen)


def policy(client: AuthenticatedClient) -> None:
    """Roles come and go; a document is checked; a decision is explained."""
    made = create_role.sync(client=client, body=RoleChange(name="generated"))
    assert made is not None and not isinstance(made, Problem) and made.name == "generated"
    assert made.id in {role.id for role in list_roles.sync(client=client).results}
    assert delete_role.sync_detailed(made.id, client=client).status_code == 204
    checked = check_policy.sync(client=client, body=Draft(document="roles: {}"))
    assert checked is not None and not isinstance(checked, Problem), checked
    wanted = Question.from_dict({"role": "admin", "upstream": "fake", "kind": "tool", "name": "list_customers"})
    told = explain_policy.sync(client=client, body=wanted)
    assert told is not None and not isinstance(told, Problem), told


def main() -> None:
    """Play everything, in turn."""
    place = json.load(sys.stdin)
    client = AuthenticatedClient(base_url=place["url"], token=place["key"])
    made = keys(client)
    problems(client)
    policy(client)
    print(json.dumps({"key": str(made), "events": events(client)}))


main()
