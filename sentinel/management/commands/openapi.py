"""`manage.py openapi`: the description of the REST API, as it is committed in docs/openapi.json."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand


class Command(BaseCommand):
    """Writes the description of the REST API."""

    help = "Writes the description of the REST API (OpenAPI 3.1)."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare where to."""
        parser.add_argument("file", nargs="?", help="a file to write; not given: standard output")

    def handle(self, *args: Any, **options: Any) -> None:
        from sentinel.api import urls

        text = json.dumps(urls.document(), indent=1, ensure_ascii=False) + "\n"
        if options["file"]:
            Path(options["file"]).write_text(text, encoding="utf-8")
        else:
            self.stdout.write(text, ending="")
