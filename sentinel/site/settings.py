"""The part of Django's settings that is about people: log-in, sessions, passwords, the second factor."""

from __future__ import annotations

from datetime import timedelta

from core.conf.settings import Config

COOLOFF = timedelta(minutes=10)  # for whoever gave too many wrong passwords


def settings_for(config: Config) -> dict[str, object]:
    """Return the settings, by name, for this configuration."""
    https = config.public_url.startswith("https://")
    return {
        "AUTHENTICATION_BACKENDS": [
            "axes.backends.AxesStandaloneBackend",
            "django.contrib.auth.backends.ModelBackend",
        ],
        "AUTH_PASSWORD_VALIDATORS": [
            {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
            {
                "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
                "OPTIONS": {"min_length": 10},
            },
            {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
            {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
        ],
        "LOGIN_URL": "admin:login",
        "LOGIN_REDIRECT_URL": "admin:index",
        # Browsers do not tell ports apart: two instances on one machine keep their sessions by name.
        "SESSION_COOKIE_NAME": f"sentinel_session_{config.instance}",
        "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SAMESITE": "Lax",
        "SESSION_COOKIE_SECURE": https,
        "SESSION_COOKIE_AGE": int(timedelta(hours=12).total_seconds()),
        "CSRF_COOKIE_SECURE": https,
        "CSRF_COOKIE_HTTPONLY": True,
        "CSRF_COOKIE_SAMESITE": "Lax",
        "CSRF_FAILURE_VIEW": "sentinel.site.pages.csrf_failure",
        "X_FRAME_OPTIONS": "DENY",
        "SECURE_CONTENT_TYPE_NOSNIFF": True,
        "SECURE_REFERRER_POLICY": "same-origin",
        # One address gets five wrong passwords for one name, then waits; others still get in.
        "AXES_FAILURE_LIMIT": 5,
        "AXES_COOLOFF_TIME": COOLOFF,
        "AXES_LOCKOUT_PARAMETERS": [["username", "ip_address"]],
        "AXES_RESET_ON_SUCCESS": True,
        "AXES_DISABLE_ACCESS_LOG": True,
        "AXES_ENABLE_ADMIN": False,
        "AXES_VERBOSE": False,
        "AXES_CLIENT_IP_CALLABLE": "core.access.actors.client_ip",
        "AXES_USERNAME_CALLABLE": "sentinel.users.events.axes_username",
        "AXES_LOCKOUT_CALLABLE": "sentinel.site.pages.locked_out",
        "AXES_SENSITIVE_PARAMETERS": ["username", "password"],
        "OTP_TOTP_ISSUER": "MCP Sentinel",
    }


APPS = ["axes", "django_otp", "django_otp.plugins.otp_totp", "django_otp.plugins.otp_static"]
