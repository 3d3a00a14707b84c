"""The people who use the admin: their duties, their passwords, their second factor."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.forms import SetPasswordForm
from django.contrib.auth.models import Group
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_post_parameters

from audit.services.acts import record
from core.access import duties
from core.access.reauthentication import ProofForm
from core.admin.base import Pages, asked
from sentinel.forms import NewPersonForm, PersonForm
from sentinel.models import User
from sentinel.users import second_factor
from sentinel.users.events import shown

sensitive = method_decorator(sensitive_post_parameters())


@admin.register(User)
class UserAdmin(Pages):
    """People and their duties; nobody grants more than they hold."""

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        return [
            path("<int:pk>/password/", wrap(self.password_view), name="sentinel_user_password"),
            path("<int:pk>/second-factor/", wrap(self.reset_view), name="sentinel_user_second_factor"),
            *super().get_urls(),
        ]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """People are switched off; what they did stays theirs."""
        return False

    def above(self, request: HttpRequest, user: User) -> bool:
        """Whether that person may do more than this one: then they are out of reach."""
        if request.user.is_superuser:
            return False
        return user.is_superuser or not user.get_all_permissions() <= request.user.get_all_permissions()

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        words, fits = asked(request, request.GET, {"q": None})
        text = words["q"]
        people = User.objects.prefetch_related("groups", "totpdevice_set").order_by("username")
        if text:
            people = people.filter(
                Q(username__icontains=text) | Q(email__icontains=text) | Q(last_name__icontains=text)
            )
        context = {
            **self.admin_site.each_context(request),
            "title": "Users",
            "people": list(people[:500]) if fits else [],
            "text": text,
            "duties": duties.DUTIES.values(),
            "may_add": self.has_add_permission(request),
        }
        return render(request, "admin/sentinel/users.html", context)

    @sensitive
    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        grantable = duties.grantable(request.user)
        form = NewPersonForm(request.POST or None, grantable=grantable, initial={"is_active": True, "time_zone": "UTC"})
        proof = ProofForm(request)
        if request.method == "POST" and form.is_valid() and proof.is_valid():
            with transaction.atomic():
                user = form.save(commit=False)
                user.is_staff = True
                user.set_password(form.cleaned_data["password"])
                user.save()
                user.groups.set(Group.objects.filter(name__in=form.chosen()))
                record("admin.user.created", request, target=user.username, after=shown(user))
                self.log_addition(request, user, "created")
            messages.success(request, f"{user.username} was added.")
            return redirect("admin:sentinel_user_change", user.pk)
        return self.page(request, "Add a person", form, proof, None)

    @sensitive
    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        user = self.one(object_id)
        may = self.has_change_permission(request) and not self.above(request, user)
        grantable = duties.grantable(request.user)
        before = shown(user)
        form = PersonForm(request.POST or None, instance=user, grantable=grantable)
        proof = ProofForm(request)
        if request.method == "POST":
            if not may:
                raise PermissionDenied
            if form.is_valid() and proof.is_valid():
                chosen = form.chosen()
                if user.pk == request.user.pk and (not form.cleaned_data["is_active"] or not form.held <= set(chosen)):
                    form.add_error(None, "Nobody takes their own duties away: ask another administrator.")
                else:
                    with transaction.atomic():
                        user = form.save()
                        user.groups.set(Group.objects.filter(name__in=chosen))
                        record("admin.user.changed", request, target=user.username, before=before, after=shown(user))
                        self.log_change(request, user, [{"changed": {"fields": form.changed_data}}])
                    messages.success(request, f"{user.username} was changed.")
                    return redirect("admin:sentinel_user_change", user.pk)
        return self.page(request, before["username"], form, proof, self.one(object_id), may)

    def page(
        self, request: HttpRequest, title: str, form: Any, proof: Any, user: User | None, may: bool = True
    ) -> HttpResponse:
        """Show a person's form."""
        context = {
            **self.admin_site.each_context(request),
            "title": title,
            "form": form,
            "proof": proof,
            "person": user,
            "may_change": may,
            "kept": sorted(form.kept),
            "duties": duties.DUTIES.values(),
            "factor": user is not None and second_factor.enrolled(user),
            "problems": form.errors or proof.errors,
        }
        return render(request, "admin/sentinel/user.html", context)

    @sensitive
    def password_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Set somebody's password."""
        user = self.one(pk)
        if not self.has_change_permission(request) or self.above(request, user):
            raise PermissionDenied
        form = SetPasswordForm(user, request.POST or None)
        proof = ProofForm(request)
        if request.method == "POST" and form.is_valid() and proof.is_valid():
            with transaction.atomic():
                form.save()
                record("admin.user.password_set", request, target=user.username)
                self.log_change(request, user, "password set")
            messages.success(request, f"{user.username} has a new password; their sessions have ended.")
            return redirect("admin:sentinel_user_change", user.pk)
        context = {
            **self.admin_site.each_context(request),
            "title": f"Password of {user.username}",
            "form": form,
            "proof": proof,
            "person": user,
        }
        return render(request, "admin/sentinel/password.html", context)

    def reset_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Take a lost second factor away."""
        user = self.one(pk)
        if request.method != "POST" or not self.has_change_permission(request) or self.above(request, user):
            raise PermissionDenied
        if user.pk == request.user.pk:
            return redirect("admin:second_factor_off")  # one's own is given before it is taken away
        proof = ProofForm(request, asked="confirmed" in request.POST)
        if not proof.is_valid():
            context = {
                **self.admin_site.each_context(request),
                "title": f"Reset the second factor of {user.username}?",
                "about": "Until they set up a new one, their password alone lets them in where no second factor is demanded.",
                "act": "Reset the second factor",
                "back": reverse("admin:sentinel_user_change", args=[user.pk]),
                "proof": proof,
            }
            return render(request, "admin/confirm.html", context)
        with transaction.atomic():
            second_factor.forget(user)
            record("admin.user.second_factor_reset", request, target=user.username)
            self.log_change(request, user, "second factor reset")
        messages.success(
            request, f"{user.username} sets up a second factor anew at the next log-in, where one is demanded."
        )
        return redirect("admin:sentinel_user_change", user.pk)
