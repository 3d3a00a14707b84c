"""The forms of the upstream pages."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django import forms

from core.access.members import JUDGE, MEMBERS
from proxy.models import SLUG_PATTERN, Upstream

__all__ = ["REACH", "JudgementForm", "UpstreamForm", "pairs_as_text"]

ADVANCED = (
    "idle_timeout", "tool_timeouts", "connect_timeout", "first_byte_timeout", "max_concurrent", "max_answer_bytes", "networks", "ca_pem",
    "client_cert_pem", "client_key", "refusals", "audit_level", "dispatchers", "working_directory", "environment", "process_mode",
    "memory_limit_mb",
)  # fmt: skip


HELD = "What you add, or give another address, begins hidden and refused until they approve it."
#: what says which program the gateway starts
OF_COMMANDS = ("command", "environment", "working_directory")
#: what a changed connection is made of: after a change of any of these it is checked
REACH = frozenset(
    (*OF_COMMANDS, "transport", "url", "headers", "ca_pem", "client_cert_pem", "client_key", "networks", "process_mode")
)


def pairs_as_text(pairs: dict[str, str], sign: str) -> str:
    """Show names and values as lines that people edit."""
    return "\n".join(f"{name}{sign}{value}" for name, value in pairs.items())


def _pairs(text: str, sign: str, example: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        name, separator, value = line.partition(sign)
        if not separator or not name.strip():
            raise forms.ValidationError(f"Line {number} is not like “{example}”.")
        found[name.strip()] = value.strip()
    return found


class UpstreamForm(forms.Form):
    """An upstream's settings; what is secret is shown as stored and never comes back out."""

    slug = forms.RegexField(
        SLUG_PATTERN,
        max_length=63,
        label="Name in addresses and rules",
        help_text="Lower-case letters, digits and hyphens, like crm.",
    )
    name = forms.CharField(max_length=200, required=False, label="Title")
    description = forms.CharField(max_length=1000, required=False)
    transport = forms.ChoiceField(choices=Upstream.Transport.choices, initial="streamable-http")
    url = forms.CharField(
        max_length=2000, required=False, label="URL", help_text="The MCP endpoint, like https://tools.example.com/mcp."
    )
    command = forms.CharField(
        max_length=2000,
        required=False,
        help_text="For stdio: program and arguments, split as a shell would, run without a shell.",
    )
    headers = forms.CharField(
        required=False, widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false"}),
        help_text="One a line, like “Authorization: env:MCP_UPSTREAM_CRM”. env: takes the value from the gateway's environment (variables named MCP_UPSTREAM_… or listed in SENTINEL_UPSTREAM_ENV); anything else is stored encrypted for this server, and not shown again.",
    )  # fmt: skip
    catalogue_policy = forms.ChoiceField(
        choices=Upstream.CataloguePolicy.choices, label="New or changed tools", initial="allow"
    )
    enabled = forms.BooleanField(required=False, initial=True)
    refusals = forms.ChoiceField(choices=Upstream.Refusals.choices, required=False, label="Refusals go out")
    audit_level = forms.ChoiceField(choices=Upstream.AuditLevel.choices, required=False, label="Events keep")
    dispatchers = forms.CharField(
        required=False,
        widget=forms.Textarea(attrs={"rows": 2, "spellcheck": "false"}),
        label="Tools that call others by name",
        help_text="One a line, like “call_tool = name” or “run_many = calls.*.tool”: the argument that names the other tool.",
    )
    networks = forms.CharField(required=False, help_text="If given, the only networks its addresses may lie in.")
    connect_timeout = forms.FloatField(required=False, min_value=0.05, max_value=600, label="Connect within (s)")
    first_byte_timeout = forms.FloatField(required=False, min_value=0.05, max_value=3600, label="First byte within (s)")
    idle_timeout = forms.FloatField(
        required=False,
        min_value=1,
        max_value=86400,
        label="Silent at most (s)",
        help_text="How long an answer may be waited for while nothing of it comes; progress begins it anew.",
    )
    tool_timeouts = forms.CharField(
        required=False,
        widget=forms.Textarea(attrs={"rows": 2, "spellcheck": "false"}),
        label="Silent at most, by tool (s)",
        help_text="One a line, like “export_* = 1800”; the exact name counts, else the longest pattern.",
    )
    max_concurrent = forms.IntegerField(
        required=False, min_value=1, max_value=100_000, label="Calls at once, per worker"
    )
    max_answer_bytes = forms.IntegerField(required=False, min_value=1024, label="Largest answer (bytes)")
    ca_pem = forms.CharField(required=False, widget=forms.Textarea(attrs={"rows": 2}), label="CA certificates (PEM)")
    client_cert_pem = forms.CharField(
        required=False, widget=forms.Textarea(attrs={"rows": 2}), label="Client certificate (PEM)"
    )
    client_key = forms.CharField(required=False, widget=forms.Textarea(attrs={"rows": 2}), label="Client key (PEM)")
    working_directory = forms.CharField(required=False, max_length=1000)
    environment = forms.CharField(
        required=False,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text="For stdio: one a line, like “TOKEN=env:MCP_UPSTREAM_CRM”. Beside these it gets PATH, HOME, LANG, LC_ALL and TZ alone.",
    )
    process_mode = forms.ChoiceField(choices=Upstream.ProcessMode.choices, required=False, initial="shared")
    memory_limit_mb = forms.IntegerField(required=False, min_value=1, label="Memory (MB)")

    def __init__(
        self, *args: Any, owned: Collection[str], new: bool = False, commands: bool = True, **kwargs: Any
    ) -> None:
        """`owned` are the members whose duty the person has; the others are shown, and what is sent for them is not read.

        Without `commands` so are those that say what program the gateway starts.
        """
        super().__init__(*args, **kwargs)
        if not new:
            del self.fields["slug"]
        self.owned = frozenset(owned)
        for name, field in self.fields.items():
            if name not in self.owned:
                field.disabled = True
                if MEMBERS["upstream"][name] == JUDGE:
                    field.help_text = "Decided by whoever manages the policy."
            if name in OF_COMMANDS and not commands:
                field.disabled = True
                field.help_text = "Given by an administrator, or on the host with “manage.py upstreams add”."
        if "catalogue_policy" not in self.owned:
            self.fields["catalogue_policy"].help_text += f" {HELD}"
            if new:
                self.initial["catalogue_policy"] = "quarantine"

    def given(self) -> dict[str, Any]:
        return {name: value for name, value in self.cleaned_data.items() if name in self.owned}

    @property
    def advanced(self) -> list[Any]:
        return [self[name] for name in ADVANCED]

    @property
    def advanced_wrong(self) -> bool:
        """Whether one of them must be looked at."""
        return any(name in self.errors for name in ADVANCED)

    def clean_headers(self) -> dict[str, str]:
        return _pairs(self.cleaned_data["headers"], ":", "Authorization: env:MCP_UPSTREAM_CRM")

    def clean_environment(self) -> dict[str, str]:
        return _pairs(self.cleaned_data["environment"], "=", "TOKEN=env:MCP_UPSTREAM_CRM")

    def clean_dispatchers(self) -> dict[str, str]:
        return _pairs(self.cleaned_data["dispatchers"], "=", "call_tool = name")

    def clean_tool_timeouts(self) -> dict[str, float]:
        """Read lines of a tool and its seconds."""
        found: dict[str, float] = {}
        for name, value in _pairs(self.cleaned_data["tool_timeouts"], "=", "export_* = 1800").items():
            try:
                found[name] = float(value)
            except ValueError:
                raise forms.ValidationError(f"{name}: “{value[:40]}” is no number of seconds.") from None
        return found

    def clean_networks(self) -> list[str]:
        return [word for word in self.cleaned_data["networks"].replace(",", " ").split() if word]

    def clean(self) -> dict[str, Any]:
        """Leave out what was left empty and has a default of its own."""
        data = super().clean() or self.cleaned_data
        if data.get("max_concurrent") is None:
            data["max_concurrent"] = 512
        if data.get("transport") == "stdio":
            data["url"] = ""
        return data


class JudgementForm(forms.Form):
    """What of an upstream may be used, and what events keep of it: the policy manager's part."""

    catalogue_policy = UpstreamForm.base_fields["catalogue_policy"]
    dispatchers = UpstreamForm.base_fields["dispatchers"]
    audit_level = UpstreamForm.base_fields["audit_level"]

    def clean_dispatchers(self) -> dict[str, str]:
        return _pairs(self.cleaned_data["dispatchers"], "=", "call_tool = name")
