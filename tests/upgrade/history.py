"""What happens to an installation before it is upgraded, and happens again after: calls, and the upstreams they go to."""

from __future__ import annotations

import json
import shlex
from typing import Any

from tests.support.gateway import Gateway
from tests.support.upstream import FakeUpstream, result, status
from tests.support.wire import Client, Response

# A place that is the same on every machine, and nobody's: it stands in the state that is upgraded.
HOST, PORT = "127.0.18.126", 18126
SETTINGS = {"TEAM": "blue"}  # of the gateway, which names it in a header
TOKEN = "carried over from the version before"

LOCAL = """
import hashlib, json, os, sys
for line in sys.stdin:
    asked = json.loads(line)
    method, params = asked.get("method"), asked.get("params") or {}
    if "id" not in asked or params.get("name") == "hang":
        continue
    if method == "initialize":
        info = {"name": "local", "version": "1"}
        answer = {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": info}
    elif method == "tools/list":
        answer = {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in ("secret", "hang")]}
    else:
        answer = {"content": [{"type": "text", "text": hashlib.sha256(os.environ["TOKEN"].encode()).hexdigest()}]}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": answer}), flush=True)
"""
COMMAND = shlex.join(["python3", "-c", f"exec({LOCAL!r})"])  # in one line, as a command must be

POLICY = """
roles:
  admin: {allow: ["*"]}
  user: {allow: ["public.echo", "list_*"]}
  readonly: {description: "Looks, and touches nothing.", allow: ["list_customers"]}
  clerk: {allow: ["list_customers"]}
rules:
  - {name: clerks pay little, effect: allow, roles: [clerk], tool: pay, upstreams: [crm], when: [{argument: amount, le: %s}]}
  - {name: the first stays, effect: deny, roles: "*", tool: delete_customer,
     when: [{argument: customer_id, eq: "1"}], reason: "The first customer stays."}
rate_limits:
  per_api_key: {requests: 120, window_seconds: 60}
  per_tool:
    overrides: {public.echo: {requests: 3, window_seconds: 60}}
audit:
  - {level: digest, tool: get_customer}
"""

PERSONAL = {
    "text": "write to ada@example.org about badge BDG-123456",
    "employeeNumber": "4711",
    "password": "correct horse battery",
    "amount": 12345678901234567890.125,
    "name": "Zoë \u202e\u0000 ⚙",
}
# What its event is found by, whose key, which upstream, which tool, with what: each means the same in every version.
CALLS: tuple[tuple[str, str, str, str, Any], ...] = (
    ("allowed", "user", "crm", "list_customers", {"page": 1}),
    ("no-rule", "readonly", "crm", "delete_customer", {"customer_id": "2"}),
    ("denied", "admin", "crm", "delete_customer", {"customer_id": "1"}),
    ("condition", "clerk", "crm", "pay", {"amount": 75}),
    ("condition-denied", "clerk", "crm", "pay", {"amount": 101}),
    ("other-upstream", "fenced", "crm", "list_customers", {}),
    ("other-network", "elsewhere", "crm", "list_customers", {}),
    ("redacted", "admin", "crm", "note", PERSONAL),
    ("digest", "admin", "crm", "get_customer", {"customer_id": "2"}),
    ("failed", "admin", "crm", "break", {}),
    ("tool-error", "admin", "crm", "wrong", {}),
    ("command", "admin", "local", "secret", {}),
    ("fenced", "fenced", "local", "secret", {}),
    ("rotated", "rotated", "crm", "list_customers", {}),
)
LIMITED = ("limited", "user", "crm", "public.echo", {"text": "hello"})


def crm() -> FakeUpstream:
    """The server at an address: decent but for two of its tools."""
    fake = FakeUpstream(host=HOST, port=PORT)
    fake.script(status(500, b"oh no"), name="break")
    fake.script(result({"content": [{"type": "text", "text": "no such thing"}], "isError": True}), name="wrong")
    return fake


def call(gateway: Gateway, keys: dict[str, str], what: tuple[str, str, str, str, Any]) -> Response:
    """Make one of the calls."""
    rpc_id, who, upstream, tool, arguments = what
    client: Client = gateway.client(keys.get(who), upstream)
    answer: Response = client.call(tool, arguments, rpc_id)
    return answer


def is_of(event: dict[str, Any], name: str) -> bool:
    """Whether an event is that of a call with this name."""
    return json.loads(event["rpc_id"] or "null") == name
