"""What the command line can say of an upstream: one table, from which `upstreams add` and `upstreams change` are made.

What was not given is not in the result: a new upstream has the model's defaults there, and one that is changed what it had.
"""

from __future__ import annotations

import argparse
import math
from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.core.management.base import CommandError

from core.durations import parse_duration
from proxy.models import Upstream
from proxy.upstreams import vault

#: what kinds of upstream an option is for: one with a URL, one with a command, or both
URL, COMMAND, BOTH = "--url", "--command", ""
DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Option:
    """One option: the setting that it gives, for which upstreams, and how it is read."""

    flag: str
    setting: str
    help: str
    of: str = BOTH
    metavar: str = ""
    #: reads one value; a setting that is not text
    read: Callable[[str], Any] = str
    choices: tuple[str, ...] = ()
    #: the value that the flag stands for by itself
    means: Any = None
    #: names and values of which each is given by itself, and this option adds to them or (`takes`) takes away
    pairs: bool = False
    takes: bool = False

    @property
    def place(self) -> str:
        """Where argparse keeps it; apart from every name that Django's own options have."""
        return "given_" + self.flag.removeprefix("--").replace("-", "_")

    def declare(self, parser: Any) -> None:
        more: dict[str, Any] = {"dest": self.place, "help": self.help, "default": argparse.SUPPRESS}
        if self.means is not None:
            parser.add_argument(self.flag, action="store_const", const=self.means, **more)
            return
        if self.pairs:
            more["action"] = "append"
        if self.choices:
            more["choices"] = self.choices
        else:
            more |= {"metavar": self.metavar or None, "type": str if self.pairs else self.read}
        parser.add_argument(self.flag, **more)


def _bounded(kind: type[int] | type[float], least: float, most: float, what: str) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        if text == DEFAULT:
            return None
        try:
            number = kind(text)
        except ValueError:
            number = kind(0)
        if not (math.isfinite(number) and least <= number <= most):
            raise argparse.ArgumentTypeError(f"{text!r} is not {what} from {least:g} to {most:g}, nor “{DEFAULT}”")
        return number

    return read


def _span(text: str) -> float:
    """Read a time, such as 90s or 30m, or a number of seconds."""
    try:
        seconds = float(text) if text.replace(".", "", 1).isdecimal() else parse_duration(text).total_seconds()
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}") from None
    if not 0.001 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time from 0.001 s to a day")
    return seconds


def _span_or_default(text: str) -> float | None:
    return None if text == DEFAULT else _span(text)


def _file(path: str) -> str:
    if not path:
        return ""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise argparse.ArgumentTypeError(f"{path} cannot be read: {reason}") from None


def _networks(text: str) -> list[str]:
    return [network for network in text.replace(",", " ").split() if network]


_VALUES = (
    "NAME=env:VAR takes the value from the gateway's environment, where VAR is named MCP_UPSTREAM_… or listed in "
    "SENTINEL_UPSTREAM_ENV; a literal value is stored encrypted; may be repeated"
)
_PAIR = "NAME=VALUE"
_OR_DEFAULT = f"“{DEFAULT}”: as the installation says"

_EXAMPLES = {
    "headers": "Authorization=env:MCP_UPSTREAM_TOKEN",
    "environment": "TOKEN=env:MCP_UPSTREAM_TOKEN",
    "dispatchers": "call_tool=name",
    "tool_timeouts": "export_*=1h",
}

OPTIONS = (
    Option("--name", "name", "a name for people", metavar="TEXT"),
    Option("--description", "description", "what it is for", metavar="TEXT"),
    Option("--transport", "transport", "how the server at --url is spoken to (streamable-http)", URL,
           choices=("streamable-http", "sse")),
    Option("--header", "headers", f"sent with each request; {_VALUES}", URL, _PAIR, pairs=True),
    Option("--ca", "ca_pem", "certificate authorities to trust instead of the system's (PEM)", URL, "FILE", _file),
    Option("--client-cert", "client_cert_pem", "client certificate (PEM)", URL, "FILE", _file),
    Option("--client-key", "client_key", "its key (PEM, not encrypted); stored encrypted", URL, "FILE", _file),
    Option("--networks", "networks", "the only networks in which its addresses may lie, by commas", URL, "LIST", _networks),
    Option("--env", "environment", f"environment of --command; {_VALUES}", COMMAND, _PAIR, pairs=True),
    Option("--cwd", "working_directory", "folder in which --command runs", COMMAND, "FOLDER"),
    Option("--per-session", "process_mode", "start --command once for each session", COMMAND, means="session"),
    Option("--shared", "process_mode", "one process of --command for all sessions (what it is when nothing is said)", COMMAND,
           means="shared"),
    Option("--memory-mb", "memory_limit_mb", "address space --command may have; “default”: any", COMMAND, "MB",
           _bounded(int, 1, 2**31 - 1, "a number")),
    Option("--connect-timeout", "connect_timeout", f"for the connection; {_OR_DEFAULT}", BOTH, "SPAN", _span_or_default),
    Option("--first-byte-timeout", "first_byte_timeout", f"until an answer begins; {_OR_DEFAULT}", BOTH, "SPAN", _span_or_default),
    Option("--idle-timeout", "idle_timeout", "how long an answer may be waited for while nothing of it comes, such as 90s or 30m; "
           f"progress begins it anew; {_OR_DEFAULT}", BOTH, "SPAN", _span_or_default),
    Option("--tool-timeout", "tool_timeouts", "the same for one tool, or for those whose names fit a pattern, such as export_*=1h; "
           "may be repeated", BOTH, "TOOL=SPAN", _span, pairs=True),
    Option("--max-concurrent", "max_concurrent", "calls that may wait for it at once, in each worker (512)", BOTH, "N",
           _bounded(int, 1, 100_000, "a number")),
    Option("--max-answer-bytes", "max_answer_bytes", f"largest answer; {_OR_DEFAULT}", BOTH, "BYTES",
           _bounded(int, 1024, 2**40, "a number")),
    Option("--refusals", "refusals", f"how refusals go out; {_OR_DEFAULT}",
           choices=(DEFAULT, *filter(None, Upstream.Refusals.values))),
    Option("--audit-level", "audit_level", f"what of payloads events keep; {_OR_DEFAULT}",
           choices=(DEFAULT, *filter(None, Upstream.AuditLevel.values))),
    Option("--catalogue-policy", "catalogue_policy", "what becomes of definitions that nobody has approved (allow)",
           choices=tuple(Upstream.CataloguePolicy.values)),
    Option("--quarantine", "catalogue_policy", "the same as --catalogue-policy quarantine: hide and refuse them until they are approved",
           means="quarantine"),
    Option("--dispatcher", "dispatchers", "a tool that calls or describes another by name, and the argument that names it, such as "
           "call_tool=name or run_many=calls.*.tool; may be repeated", BOTH, "TOOL=ARGUMENT", pairs=True),
)  # fmt: skip
#: what only an upstream that is there can be told
CHANGES = (
    Option("--remove-header", "headers", "send this header no longer; may be repeated", URL, "NAME", pairs=True, takes=True),
    Option("--remove-env", "environment", "give this variable no longer; may be repeated", COMMAND, "NAME", pairs=True, takes=True),
    Option("--remove-tool-timeout", "tool_timeouts", "this tool has no time of its own; may be repeated", BOTH, "TOOL", pairs=True,
           takes=True),
    Option("--remove-dispatcher", "dispatchers", "this tool calls no other; may be repeated", BOTH, "TOOL", pairs=True, takes=True),
    Option("--enable", "enabled", "let calls through again", means=True),
    Option("--disable", "enabled", "answer 404 as if it were not there", means=False),
)  # fmt: skip


def declare(parser: ArgumentParser, *, new: bool) -> None:
    """Add the options to the parser of `add` (`new`) or `change`."""
    where = parser.add_mutually_exclusive_group(required=new)
    of_url: dict[str, Any] = {"dest": "given_url", "metavar": "URL", "default": argparse.SUPPRESS}
    where.add_argument("--url", help="the MCP endpoint, such as https://tools.example.com/mcp", **of_url)
    of_command: dict[str, Any] = {"dest": "given_command", "metavar": "COMMAND", "default": argparse.SUPPRESS}
    where.add_argument("--command", help="program and arguments (stdio), run without a shell", **of_command)
    for option in OPTIONS if new else (*OPTIONS, *CHANGES):
        option.declare(parser)


def chosen(given: Mapping[str, Any], upstream: Upstream | None = None) -> dict[str, Any]:
    """Give the settings that were said, for a new upstream or this one; raises CommandError."""
    is_command = "given_command" in given or (
        "given_url" not in given and upstream is not None and upstream.transport == Upstream.Transport.STDIO
    )
    said = [option for option in (*OPTIONS, *CHANGES) if option.place in given]
    other = URL if is_command else COMMAND
    if astray := [option.flag for option in said if option.of == other]:
        kind = COMMAND if is_command else URL
        raise CommandError(f"{', '.join(astray)} can be said of an upstream with {other}, not of one with {kind}.")
    settings = _moved(given, upstream)
    for option in said:
        value = given[option.place]
        if option.pairs:
            settings[option.setting] = _pairs(option, value, settings.get(option.setting), upstream)
        elif option.setting in settings and settings[option.setting] != value and option.setting != "transport":
            raise CommandError(f"{option.flag} says something else than another option does.")
        else:
            settings[option.setting] = "" if option.choices and value == DEFAULT else value
    return settings


def _moved(given: Mapping[str, Any], upstream: Upstream | None) -> dict[str, Any]:
    """Give what an address or a command says; what belonged to the other kind of upstream does not come along."""
    before = upstream.transport if upstream is not None else ""
    gone: dict[str, Any]
    if "given_command" in given:
        gone = {"headers": {}, "ca_pem": "", "client_cert_pem": "", "client_key": "", "networks": []} if before else {}
        return {"transport": "stdio", "command": given["given_command"], **(gone if before != "stdio" else {})}
    if "given_url" not in given:
        return {}
    if before not in ("", "stdio"):
        return {"url": given["given_url"]}
    gone = {
        "command": "",
        "environment": {},
        "working_directory": "",
        "process_mode": "shared",
        "memory_limit_mb": None,
    }
    return {"transport": "streamable-http", "url": given["given_url"], **(gone if before else {})}


def _pairs(
    option: Option, given: list[str], already: dict[str, Any] | None, upstream: Upstream | None
) -> dict[str, Any]:
    """Add to what is there, or take away from it; the names of headers are the same in any case."""

    def key(name: str) -> str:
        return name.lower() if option.setting == "headers" else name

    if already is None:
        already = getattr(upstream, option.setting) if upstream is not None else {}
        if option.setting in ("headers", "environment"):
            already = {name: vault.shown(value) for name, value in already.items()}
    kept = dict(already)
    seen: set[str] = set()
    for pair in given:
        name, equals, value = pair.partition("=")
        if option.takes:
            name = pair
            if key(name) not in map(key, already):
                # the text itself may be a secret that went astray, so it is not repeated
                raise CommandError(f"{option.flag}: there is none of this name.")
        elif not equals or not name:
            raise CommandError(
                f"{option.flag} needs {option.metavar}, such as {option.flag} {_EXAMPLES[option.setting]}."
            )
        if key(name) in seen:
            raise CommandError(f"{option.flag} {name} is given twice.")
        seen.add(key(name))
        kept = {other: held for other, held in kept.items() if key(other) != key(name)}
        if not option.takes:
            try:
                kept[name] = option.read(value)
            except argparse.ArgumentTypeError as error:
                raise CommandError(f"{option.flag} {name}: {error}.") from None
    return kept
