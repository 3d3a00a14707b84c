#!/usr/bin/env python3
"""Run a command of MCP Sentinel: `manage.py serve`, `manage.py keys create`, `manage.py help`."""

import os
import sys


def main() -> None:
    """Hand the command line to Django."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sentinel.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
