"""Settings of the gateway and its workers; the only reader of the environment."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import environ

from celery_app import GROUPS
from flows.logs import logging_config, use_in_celery

BASE_DIR = Path(__file__).resolve().parent.parent

env = environ.Env()

DEBUG = env.bool("DEBUG", default=False)
# Django refuses to use an empty one: whatever needs a secret fails until it is set.
SECRET_KEY = env.str("SECRET_KEY", default="")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1"])
ROOT_URLCONF = "gateway_project.urls"
ASGI_APPLICATION = "gateway_project.asgi.application"
WSGI_APPLICATION = "gateway_project.wsgi.application"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_celery_results",
    "django_htmx",
    "flows",
]

MIDDLEWARE = [
    "flows.http.problems.ProblemMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "servestatic.middleware.ServeStaticMiddleware",
    "gateway_project.middleware.SessionMiddleware",
    "gateway_project.middleware.CommonMiddleware",
    "gateway_project.middleware.CsrfViewMiddleware",
    "gateway_project.middleware.AuthenticationMiddleware",
    "gateway_project.middleware.MessageMiddleware",
    "gateway_project.middleware.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {"default": env.db_url("DATABASE_URL", default="postgresql://flows:flows@127.0.0.1:5432/flows")}
DATABASES["default"] |= {
    # Workers keep their connections. The gateway, whose requests have a thread each, sets 0.
    "CONN_MAX_AGE": env.int("CONN_MAX_AGE", default=None),
    "CONN_HEALTH_CHECKS": True,
    "OPTIONS": {
        **DATABASES["default"].get("OPTIONS", {}),
        # The same few statements run again and again. Set to none behind a pooler that shares sessions.
        "prepare_threshold": 3,
        "connect_timeout": 3,
    },
}

# Whoever has to log in to see a flow does so where the team does.
LOGIN_URL = "admin:login"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
# Without it Django and Celery log as they are used to.
if LOG_FORMAT := env.str("LOG_FORMAT", default=""):
    LOGGING = logging_config(LOG_FORMAT, env.str("LOG_LEVEL", default="INFO"))
    use_in_celery(LOGGING)
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
SERVESTATIC_USE_FINDERS = True

FLOWS: dict[str, Any] = {
    "MODULES": tuple(f"services.{group.replace('-', '_')}" for group in GROUPS),
    "GROUPS": GROUPS,
    "FLOWER_URL": env.str("FLOWER_URL", default=""),
    "METRICS_TOKEN": env.str("FLOWS_METRICS_TOKEN", default=""),
    "SLOW_MOTION": timedelta(seconds=env.float("FLOWS_SLOW_MOTION_S", default=0.0)),
}

CELERY_BROKER_URL = env.str("REDIS_URL", default="redis://127.0.0.1:6379/0")
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {
    # Messages are hints: a lost one is sent again within seconds, long before this.
    "visibility_timeout": 3600,
    # A frozen or half-open Redis fails within seconds instead of hanging for ever.
    "socket_timeout": 2,
    "socket_connect_timeout": 2,
    "socket_keepalive": True,
    "health_check_interval": 10,
}
# One quick retry; then the sweep sends again.
CELERY_TASK_PUBLISH_RETRY_POLICY = {"max_retries": 1, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.1}
CELERY_TASK_SERIALIZER = CELERY_RESULT_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = CELERY_RESULT_ACCEPT_CONTENT = ["json"]
CELERY_RESULT_BACKEND = "flows.backend:PromiseBackend"
CELERY_TASK_CREATE_MISSING_QUEUES = False
CELERY_TASK_DEFAULT_QUEUE = GROUPS[0]
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
# Calls to one node, poll://uni@<group>/<node>, come by a queue of its own.
CELERY_WORKER_DIRECT = True
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
# What a function prints is shown as it is.
CELERY_WORKER_REDIRECT_STDOUTS = False
CELERY_WORKER_HIJACK_ROOT_LOGGER = True
# Keep the database connection between tasks; its loss would end the claims that hang on its session.
CELERY_DB_REUSE_MAX = 1_000_000
