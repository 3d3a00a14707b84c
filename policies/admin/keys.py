"""Keys in the admin: a list, a page for each, and one short page whose answer shows the secret once."""

from __future__ import annotations

import json
import secrets
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Coalesce
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import URLPattern, path
from django.utils import timezone

from core import registry
from core.access import duties
from core.access.actors import actor
from core.access.reauthentication import ProofForm
from core.admin.base import Pages, asked
from policies.forms.keys import KeyForm, NewKeyForm, RevokeForm, RotateForm
from policies.models import ApiKey, IdempotentRequest, Role
from policies.simulate import preview

PAGE = 50
STATES = {
    "": "Live",
    "expiring": "Expiring",
    "unused": "Unused",
    "expired": "Expired",
    "revoked": "Revoked",
    "all": "All",
}


def in_state(keys: QuerySet[ApiKey], state: str) -> QuerySet[ApiKey]:
    now = timezone.now()
    live = Q(revoked_at=None) & (Q(expires_at=None) | Q(expires_at__gt=now))
    if state == "expiring":
        return keys.filter(revoked_at=None, expires_at__gt=now, expires_at__lt=now + timedelta(days=14))
    if state == "unused":
        old = now - timedelta(days=90)
        return (
            keys.filter(live, created_at__lt=old)
            .annotate(seen=Coalesce("usage__last_used_at", "created_at"))
            .filter(seen__lt=old)
        )
    if state == "expired":
        return keys.filter(revoked_at=None, expires_at__lte=now)
    if state == "revoked":
        return keys.filter(revoked_at__isnull=False)
    return keys if state == "all" else keys.filter(live)


class SentBeforeError(Exception):
    """A form whose answer shows a secret was sent a second time: the page was loaded again, or the button pressed twice."""


def spend(request: HttpRequest) -> None:
    """Take a form's token, which is good once, in the transaction of the act; whoever comes second waits, and is refused."""
    token = request.POST.get("once", "")[:64]
    if not token:
        return
    IdempotentRequest.objects.filter(created_at__lt=timezone.now() - timedelta(days=1)).delete()
    try:
        with transaction.atomic():
            IdempotentRequest.objects.create(caller=f"form {request.user.pk}", key=token, digest="")
    except IntegrityError:
        raise SentBeforeError from None


@admin.register(ApiKey)
class ApiKeyAdmin(Pages):
    """Keys: created, rotated and revoked by the services that leave an event; never deleted."""

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A key is revoked, so that its events keep somebody to point at."""
        return False

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        return [
            path("revoke/", wrap(self.revoke_many_view), name="policies_apikey_revoke_many"),
            path("<uuid:key_id>/rotate/", wrap(self.rotate_view), name="policies_apikey_rotate"),
            path("<uuid:key_id>/revoke/", wrap(self.revoke_view), name="policies_apikey_revoke"),
            *super().get_urls(),
        ]

    def may_revoke(self, request: HttpRequest) -> bool:
        """Whether this person may rotate and revoke."""
        return bool(request.user.has_perm("policies.revoke_apikey"))

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """List keys by state."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        roles = list(Role.objects.values_list("name", flat=True))
        keys, (state, text, role) = self.found(request, request.GET, roles)
        pages = Paginator(keys, PAGE)
        page = pages.get_page(request.GET.get("page"))
        context = {
            **self.admin_site.each_context(request),
            "title": "Keys",
            "page": page,
            "keys": list(page.object_list),
            "states": STATES.items(),
            "state": state,
            "text": text,
            "role": role,
            "roles": roles,
            "number": pages.count,
            "now": timezone.now(),
            "soon": timezone.now() + timedelta(days=14),
            "may_add": self.has_add_permission(request),
            "may_revoke": self.may_revoke(request),
            "any": bool(page.object_list) or ApiKey.objects.exists(),
        }
        return render(request, "admin/policies/keys.html", context)

    def found(
        self, request: HttpRequest, query: QueryDict, roles: list[str]
    ) -> tuple[QuerySet[ApiKey], tuple[str, str, str]]:
        """Return the keys that a filter means, and the filter; none where it cannot be understood."""
        words, fits = asked(request, query, {"state": STATES, "q": None, "role": roles})
        state, text, role = words["state"], words["q"], words["role"]
        keys = in_state(ApiKey.objects.select_related("role", "usage"), state)
        if text:
            public = text.removeprefix("mcps_live_")[:12]
            keys = keys.filter(Q(name__icontains=text) | Q(owner__icontains=text) | Q(public_id__startswith=public))
        if role:
            keys = keys.filter(role__name=role)
        return keys.order_by("name", "created_at", "pk") if fits else keys.none(), (state, text, role)

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """Create a key, and show its secret this once."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        grantable = duties.grantable(request.user)
        form = NewKeyForm(request.POST or None, duties=grantable, initial={"role": _first_role(request)})
        if request.method == "POST" and form.is_valid():
            from policies.services import keys as key_acts

            data = form.cleaned_data
            try:
                with transaction.atomic():
                    spend(request)
                    made = key_acts.create_key(
                        name=data["name"],
                        role=data["role"].name if data["role"] else None,
                        duty=data["duty"] or None,
                        owner=data["owner"],
                        description=data["description"],
                        expires_at=data["expires_at"],
                        networks=data["networks"],
                        upstreams=data["upstreams"],
                        query_allowed=data["query_allowed"],
                        actor=actor(request),
                    )
            except SentBeforeError:
                messages.warning(
                    request, "This form was sent before: the key was made then, and its secret shown once."
                )
                return redirect("admin:policies_apikey_changelist")
            except (ValidationError, ValueError) as error:
                form.add_error(None, _words(error))
            else:
                key, secret = _made(made)
                self.log_addition(request, key, "created")
                return self.secret_page(request, key, secret, "created")
        context = {
            **self.admin_site.each_context(request),
            "title": "Create a key",
            "form": form,
            "duties": grantable,
            "known": registry.suggestions(),
            "once": secrets.token_hex(16),
        }
        return render(request, "admin/policies/key_new.html", context)

    def secret_page(self, request: HttpRequest, key: ApiKey, secret: str, how: str, ends: Any = None) -> HttpResponse:
        """Show a secret: it is in this answer and nowhere else."""
        upstreams = [value for value, _ in registry.suggestions().get("upstream", [])]
        reach = [slug for slug in upstreams if not key.upstreams or slug in key.upstreams]
        context = {
            **self.admin_site.each_context(request),
            "title": f"Key {how}",
            "key": key,
            "secret": secret,
            "how": how,
            "ends": ends,
            "snippets": snippets(base_url(request), reach[0] if reach else "UPSTREAM", secret, bool(key.duty)),
            "upstream": reach[0] if reach else "",
        }
        response = render(request, "admin/policies/key_secret.html", context)
        response.headers["Cache-Control"] = "no-store"
        return response

    def one(self, key_id: Any) -> ApiKey:
        """Return a key, or say that there is none."""
        try:
            key = ApiKey.objects.select_related("role", "usage").filter(pk=UUID(str(key_id))).first()
        except ValueError:
            key = None
        if key is None:
            raise Http404
        return key

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show a key: what it is, when it was used, what it may call; and change what may be changed."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        key = self.one(object_id)
        may_change = self.has_change_permission(request) and key.revoked_at is None and self.holds_enough(request, key)
        initial = {
            "name": key.name, "role": key.role_id, "owner": key.owner, "description": key.description,
            "expires_at": key.expires_at and timezone.localtime(key.expires_at).replace(tzinfo=None, second=0, microsecond=0),
            "networks": ", ".join(map(str, key.networks)), "upstreams": ", ".join(key.upstreams), "query_allowed": key.query_allowed,
        }  # fmt: skip
        form = KeyForm(request.POST or None, initial=initial)
        if request.method == "POST":
            if not may_change:
                raise PermissionDenied
            if form.is_valid():
                from policies.services import keys as key_acts

                data = dict(form.cleaned_data)
                if key.duty:
                    data.pop("role")
                else:
                    data["role"] = data["role"].name if data["role"] else (key.role.name if key.role else None)
                if "expires_at" not in form.changed_data:
                    data["expires_at"] = key.expires_at
                try:
                    key_acts.update_key(key.pk, actor=actor(request), **data)
                except (ValidationError, ValueError) as error:
                    form.add_error(None, _words(error))
                else:
                    self.log_change(request, key, [{"changed": {"fields": form.changed_data}}])
                    messages.success(request, f"{key.name} was changed.")
                    return redirect("admin:policies_apikey_change", key.pk)
        context = {
            **self.admin_site.each_context(request),
            "title": key.name,
            "key": key,
            "form": form,
            "usage": getattr(key, "usage", None),
            "secrets": list(
                key.secrets.order_by("-generation").only("generation", "last4", "created_at", "not_after", "key_id")
            ),
            "reach": preview.reach_of(key) if key.role and key.is_live else None,
            "may_change": may_change,
            "may_revoke": self.may_revoke(request) and key.revoked_at is None and self.holds_enough(request, key),
            "now": timezone.now(),
        }
        return render(request, "admin/policies/key.html", context)

    def holds_enough(self, request: HttpRequest, key: ApiKey) -> bool:
        """Whether this person may handle the key's secret: an administrative key is worth its duty."""
        return not key.duty or key.duty in duties.grantable(request.user)

    def rotate_view(self, request: HttpRequest, key_id: UUID) -> HttpResponse:
        key = self.one(key_id)
        if not self.may_revoke(request) or not self.holds_enough(request, key):
            raise PermissionDenied
        form = RotateForm(request.POST or None, initial={"overlap": "3600"})
        if request.method == "POST" and form.is_valid():
            from policies.services import keys as key_acts

            overlap = timedelta(seconds=int(form.cleaned_data["overlap"]))
            try:
                with transaction.atomic():
                    spend(request)
                    made = key_acts.rotate_key(key.pk, overlap=overlap, actor=actor(request))
            except SentBeforeError:
                messages.warning(
                    request, "This form was sent before: the key was rotated then, and its secret shown once."
                )
                return redirect("admin:policies_apikey_change", key.pk)
            except (ValidationError, ValueError) as error:
                form.add_error(None, _words(error))
            else:
                rotated, secret = _made(made)
                self.log_change(request, rotated, "rotated")
                return self.secret_page(request, rotated, secret, "rotated", timezone.now() + overlap)
        context = {**self.admin_site.each_context(request), "title": f"Rotate {key.name}", "key": key, "form": form}
        context["once"] = secrets.token_hex(16)
        return render(request, "admin/policies/key_rotate.html", context)

    def revoke_view(self, request: HttpRequest, key_id: UUID) -> HttpResponse:
        """Revoke a key, with a reason."""
        key = self.one(key_id)
        if not self.may_revoke(request) or not self.holds_enough(request, key):
            raise PermissionDenied
        return self.revoke(request, [key], "admin:policies_apikey_change", key.pk)

    def revoke_many_view(self, request: HttpRequest) -> HttpResponse:
        """Revoke the keys chosen on the list, or all that a filter finds."""
        if not self.may_revoke(request) or request.method != "POST":
            raise PermissionDenied
        if request.POST.get("every"):
            found, _ = self.found(request, request.POST, list(Role.objects.values_list("name", flat=True)))
            keys = list(found.filter(revoked_at=None)[:1000])
        else:
            chosen = []
            for value in request.POST.getlist("key")[:1000]:
                try:
                    chosen.append(UUID(value))
                except ValueError:
                    raise Http404 from None
            keys = list(
                ApiKey.objects.select_related("role", "usage").filter(pk__in=chosen, revoked_at=None).order_by("name")
            )
        if any(not self.holds_enough(request, key) for key in keys):
            raise PermissionDenied
        if not keys:
            messages.warning(request, "No live key was chosen.")
            return redirect("admin:policies_apikey_changelist")
        return self.revoke(request, keys, "admin:policies_apikey_changelist", many=True)

    def revoke(
        self, request: HttpRequest, keys: list[ApiKey], back: str, *where: Any, many: bool = False
    ) -> HttpResponse:
        """Ask why, then revoke all or none; to stop many agents at once, who does it proves again that it is they."""
        asked = request.method == "POST" and "reason" in request.POST
        form = RevokeForm(request.POST if asked else None)
        proof = ProofForm(request, asked=asked) if many else None
        if asked and form.is_valid() and (proof is None or proof.is_valid()):
            from policies.services import keys as key_acts

            with transaction.atomic():
                for key in keys:
                    key_acts.revoke_key(key.pk, reason=form.cleaned_data["reason"], actor=actor(request))
                    self.log_change(request, key, "revoked")
            named = keys[0].name if len(keys) == 1 else f"{len(keys)} keys"
            messages.success(
                request, f"{named} revoked. Workers stop accepting within a second, open streams end within five."
            )
            return redirect(back, *where)
        context = {
            **self.admin_site.each_context(request),
            "title": "Revoke",
            "keys": keys,
            "form": form,
            "proof": proof,
        }
        return render(request, "admin/policies/key_revoke.html", context)


def _first_role(request: HttpRequest) -> Any:
    wanted = request.GET.get("role", "")
    return Role.objects.filter(name=wanted).values_list("pk", flat=True).first() if wanted else None


def _made(made: Any) -> tuple[ApiKey, str]:
    """Return the key and its secret, from whatever form the service gives them in."""
    if isinstance(made, tuple):
        return made[0], made[1]
    return made.key, made.secret


def _words(error: Exception) -> str:
    return " ".join(error.messages) if isinstance(error, ValidationError) else str(error)


def base_url(request: HttpRequest) -> str:
    """Return the address agents are pointed at."""
    return (settings.SENTINEL.public_url or request.build_absolute_uri("/")).rstrip("/")


def snippets(base: str, upstream: str, secret: str, administrative: bool) -> list[tuple[str, str, str]]:
    """Return ready lines for each client: (name, where it goes, text)."""
    if administrative:
        return [
            ("curl", "in a terminal", f"curl -sS {base}{registry.api()}events/ -H 'Authorization: Bearer {secret}'")
        ]
    url = f"{base}{registry.endpoint(upstream)}"
    bearer = f"Bearer {secret}"
    call = '{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
    headers = {"Authorization": bearer}
    cursor = json.dumps({"mcpServers": {upstream: {"url": url, "headers": headers}}}, indent=2)
    code = json.dumps({"servers": {upstream: {"type": "http", "url": url, "headers": headers}}}, indent=2)
    return [
        (
            "curl",
            "in a terminal",
            f"curl -sS {url} \\\n  -H 'Authorization: {bearer}' \\\n  -H 'Content-Type: application/json' \\\n"
            f"  -H 'Accept: application/json, text/event-stream' \\\n  -d '{call}'",
        ),
        (
            "Claude Code",
            "in a terminal",
            f'claude mcp add --transport http {upstream} {url} \\\n  --header "Authorization: {bearer}"',
        ),
        ("Cursor", ".cursor/mcp.json", cursor),
        ("VS Code", ".vscode/mcp.json", code),
        (
            "Codex",
            "~/.codex/config.toml",
            f'[mcp_servers.{upstream}]\nurl = "{url}"\nhttp_headers = {{ Authorization = "{bearer}" }}',
        ),
        (
            "Python",
            "the mcp package",
            "from mcp import ClientSession\nfrom mcp.client.streamable_http import streamablehttp_client\n\n"
            f'async with streamablehttp_client("{url}", headers={{"Authorization": "{bearer}"}}) as (read, write, _):\n'
            "    async with ClientSession(read, write) as session:\n        await session.initialize()\n"
            "        print(await session.list_tools())",
        ),
        (
            "TypeScript",
            "@modelcontextprotocol/sdk",
            'import { Client } from "@modelcontextprotocol/sdk/client/index.js";\n'
            'import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";\n\n'
            f'const transport = new StreamableHTTPClientTransport(new URL("{url}"), {{\n'
            f'  requestInit: {{ headers: {{ Authorization: "{bearer}" }} }},\n}});\n'
            'const client = new Client({ name: "my-agent", version: "1.0.0" });\n'
            "await client.connect(transport);\nconsole.log(await client.listTools());",
        ),
    ]
