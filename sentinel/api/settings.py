"""The part of Django's settings that is about the REST API."""

from __future__ import annotations

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "sentinel.api.authentication.AdministrativeKey",
        "sentinel.api.authentication.AdminSession",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["core.api.permissions.HoldsPermissions"],
    "DEFAULT_THROTTLE_CLASSES": ["sentinel.api.throttling.PerCaller"],
    "DEFAULT_RENDERER_CLASSES": ["core.api.json.Renderer"],
    "DEFAULT_PARSER_CLASSES": ["core.api.json.Parser"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "core.api.json.Negotiation",
    "DEFAULT_METADATA_CLASS": None,
    "DEFAULT_SCHEMA_CLASS": "sentinel.api.schema.Described",
    "EXCEPTION_HANDLER": "sentinel.api.refusals.handle",
    "UNAUTHENTICATED_USER": None,
    "URL_FORMAT_OVERRIDE": None,
    "NUM_PROXIES": 0,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "MCP Sentinel",
    "DESCRIPTION": "Everything the admin can do, for programs. docs/api.md says how to begin.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.1",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SERVE_INCLUDE_SCHEMA": False,
    "COMPONENT_SPLIT_REQUEST": False,
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "ENUM_ADD_EXPLICIT_BLANK_NULL_CHOICE": False,
    "SORT_OPERATIONS": True,
    "DISABLE_ERRORS_AND_WARNINGS": False,
    "POSTPROCESSING_HOOKS": ["sentinel.api.schema.finished"],
}
