#!/usr/bin/env python3
"""Run a command of MCP Sentinel: `manage.py serve`, `manage.py keys create`, `manage.py help`."""

from sentinel.cli import main

if __name__ == "__main__":
    main()
