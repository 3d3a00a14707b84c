"""A client made from the committed description: one method for each operation, nothing else known."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

DESCRIPTION = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"

Send = Callable[[str, str, bytes | None, dict[str, str]], tuple[int, dict[str, str], bytes]]


class Refused(Exception):
    """A problem, as the API told it."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(f"{status} {problem.get('code')}: {problem.get('detail')}")
        self.status, self.problem, self.code = status, problem, problem.get("code")


class ApiClient:
    """`client.createKey(body={...})`: names of operations as described; parameters by keyword, `-` written as `_`."""

    def __init__(self, send: Send, key: str) -> None:
        self._send, self._key = send, key
        described = json.loads(DESCRIPTION.read_text(encoding="utf-8"))
        self._operations = {
            operation["operationId"]: (method.upper(), path, operation)
            for path, methods in described["paths"].items()
            for method, operation in methods.items()
        }

    def __getattr__(self, name: str) -> Callable[..., Any]:
        try:
            method, path, operation = self._operations[name]
        except KeyError:
            raise AttributeError(name) from None

        def call(*, body: Any = None, **given: Any) -> Any:
            return self._call(method, path, operation, body, given)

        return call

    def _call(self, method: str, path: str, operation: dict[str, Any], body: Any, given: dict[str, Any]) -> Any:
        headers, query = {"authorization": f"Bearer {self._key}"}, []
        for one in operation.get("parameters", []):
            name = one["name"]
            keyword = name.lower().replace("-", "_") + ("_" if name == "from" else "")
            if keyword not in given:
                continue
            value = given.pop(keyword)
            if one["in"] == "path":
                path = path.replace(f"{{{name}}}", quote(str(value), safe=""))
            elif one["in"] == "header":
                headers[name.lower()] = value
            else:
                query += [(name, item) for item in (value if isinstance(value, list) else [value])]
        if given:
            raise TypeError(f"{operation['operationId']} takes no {sorted(given)[0]}")
        data = None
        if "requestBody" in operation:
            headers["content-type"] = "application/json"
            data = json.dumps(body or {}).encode()
        address = f"{path}?{urlencode(query)}" if query else path
        return self.read(*self._send(method, address, data, headers))

    def read(self, status: int, headers: dict[str, str], content: bytes) -> Any:
        """Turn an answer into a value, or raise the problem."""
        kind = headers.get("Content-Type", "")
        value = json.loads(content) if "json" in kind and "ndjson" not in kind and content else content
        if status >= 400:
            raise Refused(status, value)
        if isinstance(value, dict) and "ETag" in headers:
            value["_etag"] = headers["ETag"]
        return value

    def pages(self, name: str, **given: Any) -> Iterator[dict[str, Any]]:
        """Follow a list to its end."""
        page = getattr(self, name)(**given)
        while True:
            yield from page["results"]
            if page["next"] is None:
                return
            page = self.read(*self._send("GET", page["next"], None, {"authorization": f"Bearer {self._key}"}))
