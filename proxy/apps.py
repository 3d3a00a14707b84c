"""The proxy application."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django.apps import AppConfig

from policies.engine.schemas import KnownTarget


class ProxyConfig(AppConfig):
    """Registers the proxy application, and its catalogue as what conditions are checked against."""

    name = "proxy"

    def ready(self) -> None:
        """Let others know tools and their schemas without knowing this package."""
        from core import registry
        from policies.engine import schemas

        schemas.register(known_schemas, known_definition)
        registry.known_tools.answered_by(known_tools)
        registry.endpoint.answered_by(registry.page("/mcp/{}"))
        registry.upstreams_page.answered_by(registry.page("admin:proxy_upstream_changelist", "proxy.view_upstream"))


def known_schemas() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Give (upstream, tool, input schema) of every tool that was ever listed."""
    import json

    from proxy.models import CatalogueItem

    items = CatalogueItem.objects.filter(kind="tool").values_list("upstream__slug", "name", "definition")
    for slug, name, definition in items.iterator():
        found = json.loads(definition) if isinstance(definition, str) else definition
        schema = found.get("inputSchema") if isinstance(found, dict) else None
        if isinstance(schema, dict):
            yield slug, name, schema


def known_tools(most: int) -> list[tuple[str, str, Any, bool]]:
    """Return the tools that upstreams list: (upstream, tool, annotations, waits for approval)."""
    from proxy.models import CatalogueItem

    tools = CatalogueItem.objects.filter(kind="tool", present=True).order_by("upstream__slug", "name")
    rows = tools.values_list("upstream__slug", "name", "definition", "status")[:most]
    return [(slug, name, _annotations(definition), status == "quarantined") for slug, name, definition, status in rows]


def _annotations(definition: str) -> dict[str, Any] | None:
    """Return a tool's own hints, as far as they can be read."""
    import json

    try:
        found = json.loads(definition).get("annotations")
    except (ValueError, AttributeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def known_definition(kind: str, upstream: str, name: str) -> KnownTarget:
    """Give what a worker would know of a target now."""
    from django.db import connection

    from policies.engine.dispatchers import dispatcher_path
    from proxy.upstreams.specs import load

    connection.ensure_connection()
    spec = load(connection.connection).get(upstream)
    if spec is None or not spec.enabled:
        return KnownTarget(upstream=False)
    found = spec.definition(kind, name)
    dispatches = dispatcher_path(spec.dispatchers, name) if kind == "tool" else ""
    alike = spec.tools_alike(name) if kind == "tool" else ()
    if found is None:
        return KnownTarget(dispatches=dispatches, alike=alike)
    return KnownTarget(found.annotations or None, found.blocked, dispatches, alike=alike)
