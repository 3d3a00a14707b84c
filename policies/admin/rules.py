"""Roles, rules and limits in the admin; each reads back as a sentence before it is saved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.db.models import Count, Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, path

from core import registry
from core.access.actors import actor
from core.admin.base import EditPages, asked, number
from policies.admin import explain
from policies.documents.sentences import limit_sentence, rule_sentence
from policies.engine import glob
from policies.engine.compiled import PolicyError
from policies.forms.rules import ConditionForms, LimitForm, RuleForm, condition_initial, limit_initial, rule_initial
from policies.models import RateLimit, Role, Rule
from policies.services import policy as policy_acts
from policies.simulate import preview
from policies.specs import ConditionSpec, LimitSpec, RuleSpec

PAGE = 100


def _blame(form: Any, error: ValidationError) -> None:
    for field, words in (error.message_dict if hasattr(error, "error_dict") else {None: error.messages}).items():
        form.add_error(field if field in form.fields else None, words)


@admin.register(Role)
class RoleAdmin(EditPages):
    """Roles, and what each may call."""

    fields = ("name", "description")

    def get_urls(self) -> list[URLPattern]:
        return [
            path("matrix/", self.admin_site.admin_view(self.matrix_view), name="policies_role_matrix"),
            *super().get_urls(),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """List roles with how many keys hold them."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        live = Count("api_keys", filter=Q(api_keys__revoked_at=None), distinct=True)
        context = {
            **self.admin_site.each_context(request),
            "title": "Roles",
            "roles": list(
                Role.objects.annotate(live=live, rule_count=Count("rules", distinct=True)).order_by("name")[:500]
            ),
            "may_add": self.has_add_permission(request),
        }
        return render(request, "admin/policies/roles.html", context)

    def matrix_view(self, request: HttpRequest) -> HttpResponse:
        """Show which role may call which tool."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        roles = list(Role.objects.values_list("name", flat=True)[:12])
        words, fits = asked(request, request.GET, {"q": None})
        text = words["q"]
        tools = [tool for tool in preview.known_tools() if fits and text.lower() in tool[1].lower()]
        context = {
            **self.admin_site.each_context(request),
            "title": "Who may call what",
            "roles": roles,
            "rows": preview.matrix(roles, tools, preview.policy()),
            "text": text,
            "upstreams": registry.upstreams_page(user=request.user),
        }
        return render(request, "admin/policies/matrix.html", context)

    def edit(self, request: HttpRequest, role: Role | None) -> HttpResponse:
        """Show the form of a role and save it through the services."""
        may = self.may_save(request, role)
        form = self.get_form(request, role, change=role is not None)(request.POST or None, instance=role)
        if request.method == "POST":
            if form.is_valid():
                try:
                    if role is None:
                        made = policy_acts.create_role(actor=actor(request), **form.cleaned_data)
                    else:
                        made = policy_acts.update_role(role.pk, actor=actor(request), **form.cleaned_data)
                except ValidationError as error:
                    _blame(form, error)
                else:
                    self.log_saved(request, made, form.changed_data if role else None)
                    messages.success(request, f"Role {made.name} was saved.")
                    return redirect("admin:policies_role_change", made.pk)
            if role is not None:
                role = Role.objects.get(pk=role.pk)
        context = {
            **self.admin_site.each_context(request),
            "title": role.name if role else "Add a role",
            "role": role,
            "form": form,
            "may_change": may,
            "may_delete": role is not None and self.has_delete_permission(request),
        }
        if role is not None:
            compiled = preview.policy()
            mine = [rule for rule in compiled.spec.rules if rule.roles is None or role.name in rule.roles]
            context["rules"] = [(rule, rule_sentence(rule)) for rule in mine[:PAGE]]
            context["rows"] = preview.matrix([role.name], preview.known_tools(), compiled)
            context["keys"] = role.api_keys.filter(revoked_at=None).order_by("name")[:20]
        return render(request, "admin/policies/role.html", context)

    def deletion(self, thing: Role) -> tuple[str, str, Callable[..., Any]]:
        """Refused while live keys hold it."""
        about = "Rules that were for it alone go with it. Refused while live keys hold it."
        return f"Role {thing.name}", about, policy_acts.delete_role


@admin.register(Rule)
class RuleAdmin(EditPages):
    """Rules: a form that reads back as a sentence, with the tools it matches shown before it is saved."""

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        return [
            path("explain/", wrap(explain.explain_view), name="policies_explain"),
            path("replay/", wrap(explain.replay_view), name="policies_replay"),
            *super().get_urls(),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """List rules as sentences."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        compiled = preview.policy()
        roles = [spec.name for spec in compiled.spec.roles]
        words, fits = asked(request, request.GET, {"effect": ("allow", "deny"), "role": roles, "q": None})
        effect, role, text = words["effect"], words["role"], words["q"]
        found = [
            (rule, rule_sentence(rule))
            for rule in compiled.spec.rules
            if (not effect or rule.effect == effect) and (not role or rule.roles is None or role in rule.roles)
        ]
        if not fits:
            found = []
        if text:
            found = [pair for pair in found if text.lower() in f"{pair[1]} {pair[0].name} {pair[0].note}".lower()]
        pages = Paginator(found, PAGE)
        context = {
            **self.admin_site.each_context(request),
            "title": "Rules",
            "page": pages.get_page(request.GET.get("page")),
            "number": len(found),
            "effect": effect,
            "role": role,
            "text": text,
            "roles": roles,
            "version": compiled.version,
            "may_add": self.has_add_permission(request),
        }
        return render(request, "admin/policies/rules.html", context)

    def one(self, pk: Any) -> RuleSpec:
        """Return a rule as policy has it."""
        spec = next((rule for rule in preview.policy().spec.rules if rule.id == number(pk)), None)
        if spec is None:
            raise Http404
        return spec

    def edit(self, request: HttpRequest, rule: RuleSpec | None) -> HttpResponse:
        """Show the form; read it back as a sentence; save it through the services."""
        may = self.may_save(request, rule)
        posted = request.POST if request.method == "POST" else None
        initial = (
            rule_initial(rule)
            if rule
            else {"roles": request.GET.getlist("role"), "pattern": request.GET.get("pattern", ""), "kinds": ["tool"]}
        )
        form = RuleForm(posted, initial=initial)
        conditions = ConditionForms(
            posted, prefix="when", initial=[condition_initial(one) for one in rule.conditions] if rule else []
        )
        spec, problems = rule, []
        if posted is not None and form.is_valid() and conditions.is_valid():
            chosen: tuple[ConditionSpec, ...] = tuple(
                one.cleaned_data["spec"] for one in conditions if one.cleaned_data.get("spec")
            )
            spec = form.spec(chosen, rule.id if rule else 0)
            problems = _problems(spec)
            if not problems and "save" in posted:
                try:
                    if rule is None:
                        made = policy_acts.create_rule(spec, actor=actor(request))
                    else:
                        policy_acts.update_rule(rule.id, spec, actor=actor(request))
                        made = rule.id
                except ValidationError as error:
                    problems = list(error.messages)
                else:
                    row = Rule.objects.get(pk=made)
                    self.log_saved(request, row, form.changed_data if rule else None)
                    messages.success(request, f"Saved: {rule_sentence(spec)}")
                    return redirect("admin:policies_rule_change", made)
        elif posted is not None:
            spec = None
        context = {
            **self.admin_site.each_context(request),
            "title": (rule.name or f"Rule {rule.id}") if rule else "Add a rule",
            "rule": rule,
            "form": form,
            "conditions": conditions,
            "sentence": rule_sentence(spec) if spec else "",
            "matched": matched(spec) if spec else None,
            "problems": problems,
            "may_change": may,
            "may_delete": rule is not None and self.has_delete_permission(request),
            "known": registry.suggestions(),
        }
        return render(request, "admin/policies/rule.html", context)

    def deletion(self, thing: Rule) -> tuple[str, str, Callable[..., Any]]:
        """What changes with it."""
        about = "What only this rule allowed is denied at once; what only this rule denied may be allowed."
        return f"Rule {thing}", about, policy_acts.delete_rule


def _problems(spec: RuleSpec) -> list[str]:
    from policies.engine.compiled import CompiledRule

    try:
        CompiledRule(spec)
    except PolicyError as error:
        return [str(error).partition("): ")[2] or str(error)]
    return []


def matched(spec: RuleSpec) -> list[tuple[str, str]] | None:
    """Return the known tools that a rule's names and upstreams mean; None where it is not about tools."""
    if "tool" not in spec.kinds:
        return None
    matches = glob.matcher(spec.pattern)
    return [
        (upstream, tool)
        for upstream, tool, *_ in preview.known_tools()
        if matches(tool) and (not spec.upstreams or upstream in spec.upstreams)
    ]


@admin.register(RateLimit)
class RateLimitAdmin(EditPages):
    """Limits, read back as sentences."""

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = {
            **self.admin_site.each_context(request),
            "title": "Limits",
            "limits": [(limit, limit_sentence(limit)) for limit in preview.policy().spec.limits],
            "may_add": self.has_add_permission(request),
        }
        return render(request, "admin/policies/limits.html", context)

    def one(self, pk: Any) -> LimitSpec:
        """Return a limit as policy has it."""
        spec = next((limit for limit in preview.policy().spec.limits if limit.id == number(pk)), None)
        if spec is None:
            raise Http404
        return spec

    def edit(self, request: HttpRequest, limit: Any) -> HttpResponse:
        """Show the form; save it through the services."""
        may = self.may_save(request, limit)
        form = LimitForm(request.POST or None, initial=limit_initial(limit) if limit else {"per": ["key"]})
        spec = limit
        if request.method == "POST":
            spec = form.spec(limit.id if limit else 0) if form.is_valid() else None
            if spec and "save" in request.POST:
                try:
                    if limit is None:
                        made = policy_acts.create_limit(spec, actor=actor(request))
                    else:
                        policy_acts.update_limit(limit.id, spec, actor=actor(request))
                        made = limit.id
                except ValidationError as error:
                    _blame(form, error)
                else:
                    row = RateLimit.objects.get(pk=made)
                    self.log_saved(request, row, form.changed_data if limit else None)
                    messages.success(request, f"Saved: {limit_sentence(spec)}")
                    return redirect("admin:policies_ratelimit_changelist")
        context = {
            **self.admin_site.each_context(request),
            "title": (limit.name or f"Limit {limit.id}") if limit else "Add a limit",
            "limit": limit,
            "form": form,
            "sentence": limit_sentence(spec) if spec else "",
            "may_change": may,
            "may_delete": limit is not None and self.has_delete_permission(request),
        }
        return render(request, "admin/policies/limit.html", context)

    def deletion(self, thing: RateLimit) -> tuple[str, str, Callable[..., Any]]:
        """What changes with it."""
        return f"Limit {thing}", "It stops counting at once.", policy_acts.delete_limit
