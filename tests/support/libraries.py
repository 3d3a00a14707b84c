"""The libraries that most of a command's start goes to. To import this module is to read them: see `tests.support.commands`."""

import importlib
import os

os.environ.pop("DJANGO_SETTINGS_MODULE", None)  # the tests' own: no library may read settings here

for name in (
    "cryptography.hazmat.primitives.ciphers.aead", "django.contrib.admin.filters", "django.contrib.admin.options",
    "django.contrib.auth.hashers", "django.contrib.postgres.indexes", "django.core.management", "django.db.backends.postgresql.base",
    "django.db.migrations.loader", "django.db.migrations.writer", "django.db.models", "django.forms", "django.template.defaulttags",
    "httptools", "orjson", "prometheus_client", "psycopg.rows", "psycopg.types.json", "rest_framework.serializers", "yaml",
):  # fmt: skip
    importlib.import_module(name)
