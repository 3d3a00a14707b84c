"""Django's settings, derived from the environment by core.conf.settings."""

from __future__ import annotations

import sys
from pathlib import Path

from core.conf import parsers
from core.conf import settings as conf
from sentinel.api import settings as api_config
from sentinel.postgres import databases
from sentinel.site import settings

BASE_DIR = Path(__file__).resolve().parent.parent
SENTINEL, DATABASES = databases.configure(conf.load())

SECRET_KEY = SENTINEL.secret_key
DEBUG = False
ALLOWED_HOSTS = list(SENTINEL.allowed_hosts)
CSRF_TRUSTED_ORIGINS = [parsers.origin_of(SENTINEL.public_url)] if SENTINEL.public_url else []
SECURE_HSTS_SECONDS = 31_536_000 if SENTINEL.public_url.startswith("https:") else 0
ROOT_URLCONF = "sentinel.urls"
ASGI_APPLICATION = "sentinel.asgi.application"
AUTH_USER_MODEL = "sentinel.User"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]

INSTALLED_APPS = [
    # Daphne's application is its runserver; loading it takes 0.3 s and 20 MB, which no other process needs.
    *(["daphne"] if sys.argv[1:2] == ["runserver"] else []),
    "sentinel",
    "audit",
    "policies",
    "proxy",
    "sentinel.site.config.SentinelAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "rest_framework",
    "drf_spectacular",
    *settings.APPS,
]
# Static files come from where they lie, indexed once at start: nothing has to be collected first.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False
WHITENOISE_MAX_AGE = 300
WHITENOISE_ALLOW_ALL_ORIGINS = False
MIDDLEWARE = [
    "sentinel.site.middleware.SecurityHeadersMiddleware",
    "sentinel.site.static_files.StaticFilesMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "sentinel.site.middleware.RefusalsMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_otp.middleware.OTPMiddleware",
    "sentinel.site.middleware.ViewerMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "sentinel.site.middleware.SecondFactorMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]


REST_FRAMEWORK = api_config.REST_FRAMEWORK
SPECTACULAR_SETTINGS = api_config.SPECTACULAR_SETTINGS

globals().update(settings.settings_for(SENTINEL))

# sentinel.observability.logs does it, once: Django would do it again, and undo that, whenever it is set up.
LOGGING_CONFIG = None
