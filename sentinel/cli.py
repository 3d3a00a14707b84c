"""The command line: what Django's does, with refusals in one line, and files for their owner alone."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from django.core.management import ManagementUtility, get_commands
from django.core.management.base import BaseCommand, CommandError, CommandParser

from core import processes
from core.conf import environ
from core.conf import settings as conf
from core.conf.settings import ConfigError
from sentinel.postgres.server import PostgresError

OWN = ("sentinel", "audit", "policies", "proxy")
GUARDED = ("createsuperuser", "changepassword", "runserver")
UNGUARDED = (
    "migrate",
    "makemigrations",
    "serve",
    "worker",
    "drain",
    "upstreamhost",
    "openapi",
)  # serve asks by itself, after its other refusals


CHILDREN = ("worker", "drain", "upstreamhost")  # of `serve`: their settings have been read by now


class Utility(ManagementUtility):
    """Django's dispatcher; a command that works on the database is refused while the database lacks migrations."""

    def fetch_command(self, subcommand: str) -> BaseCommand:
        """Return the command, or end with one line."""
        if "--json" in self.argv:
            _misuse_as_json()
            if subcommand not in get_commands():
                _tell(f"Unknown command: {subcommand!r}")
        command = super().fetch_command(subcommand)
        if self.argv[1:2] == [subcommand] and not {"-h", "--help"} & set(self.argv) and _guarded(subcommand):
            if subcommand != "runserver":
                refuse_other_secrets()
            from sentinel.postgres import migrating  # and Django's applications with it: not for `--help`

            migrating.refuse_pending()
        if "--json" in self.argv:
            _errors_as_json(command)
        if subcommand in CHILDREN:
            environ.take(conf.SECRETS)
        return command


def _errors_as_json(command: BaseCommand) -> None:
    """Let a command that was asked for JSON fail in JSON too, unless it has printed its answer already."""
    run, write = command.execute, command.stdout.write
    answered = False

    def told(*args: Any, **options: Any) -> None:
        nonlocal answered
        answered = True
        write(*args, **options)

    def execute(*args: Any, **options: Any) -> Any:
        try:
            return run(*args, **options)
        except CommandError as error:
            if not answered:
                write(json.dumps({"error": str(error)}))
            raise

    setattr(command, "execute", execute)  # noqa: B010 - of this one object alone
    setattr(command.stdout, "write", told)  # noqa: B010


def _misuse_as_json() -> None:
    """Let arguments that cannot be understood be told in JSON too, before argparse ends with its usage and status 2."""
    told = CommandParser.error

    def error(parser: CommandParser, message: str) -> Any:
        _tell(message)
        told(parser, message)

    setattr(CommandParser, "error", error)  # noqa: B010 - in the process of this one command


def _tell(message: str) -> None:
    sys.stdout.write(json.dumps({"error": message}) + "\n")
    sys.stdout.flush()


def _guarded(subcommand: str) -> bool:
    return subcommand in GUARDED or (subcommand not in UNGUARDED and get_commands().get(subcommand) in OWN)


def refuse_other_secrets() -> None:
    """Refuse to work with secrets of this command's own making where the gateway must have been given its own.

    A key made under a pepper that the gateway does not have opens nothing.
    """
    from django.conf import settings

    problem = conf.unfit_for_production(settings.SENTINEL)
    if problem:
        raise ConfigError(problem)


def main(arguments: Sequence[str] = sys.argv) -> None:
    """Run a command; what cannot be used is told in one line, with exit status 1."""
    os.umask(0o077)
    processes.close()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sentinel.settings")
    try:
        Utility(list(arguments)).execute()
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read this has had enough (`| head -n 1`): end as a filter does, without a word.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except (ConfigError, PostgresError) as error:
        _end(error, arguments)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        from django.db import OperationalError

        if "--traceback" not in arguments:
            if isinstance(error, OperationalError):
                _end(f"the database does not answer: {str(error).strip().splitlines()[0]}", arguments)
            if isinstance(error, OSError):
                _end(f"{error.filename}: {error.strerror}" if error.filename else error, arguments)
        if "--json" in arguments:
            _tell("a defect of this command; standard error tells where")
        raise


def _end(error: Any, arguments: Sequence[str]) -> None:
    name = os.path.basename(arguments[0]) if arguments else "manage.py"
    if "--json" in arguments:
        _tell(str(error))
    sys.stderr.write(f"{name}: {error}\n")
    sys.exit(1)
