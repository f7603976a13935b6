"""Plain Celery with Redis as broker and django-celery-results' table as result backend."""

from collections.abc import Mapping
from functools import partial

from bench.system import Side, System, redis_url
from bench.systems import celery
from local.servers import Servers

BROKERS = {"celery-django-db": 3, "celery-django-db-tuned": 4}
DEFAULT_POLL_S, TUNED_POLL_S = 0.5, 0.005


class Client(celery.Client):
    """The same, with the connection of a Django project."""

    def __init__(self) -> None:
        import django

        django.setup()
        super().__init__()


def _variables(name: str, poll_s: float, servers: Servers) -> Mapping[str, str]:
    return {
        "DATABASE_URL": servers.database_url,
        "REDIS_URL": redis_url(servers, BROKERS[name]),
        "RESULT_BACKEND": "django-db",
        "DJANGO_SETTINGS_MODULE": "bench.plain_settings",
        "POLL_S": str(poll_s),
    }


def _system(name: str, poll_s: float, does: Mapping[str, str]) -> System:
    return System(
        name=name,
        side=Side(
            name=name, procfile="celery", client=Client, probe="nested", variables=partial(_variables, name, poll_s)
        ),
        does=does,
        configuration=(
            "Redis as broker, `django-db` as result backend, late acks, prefetch multiplier 1, no events; "
            f"nested `get(interval={poll_s:g})`{', and `chord`' if 'fan_out' in does else ''}"
        ),
    )


# A worker that looks twice a second ends a chain in a second: what needs many of them is left to the tuned one.
CELERY_DJANGO_DB = _system("celery-django-db", DEFAULT_POLL_S, {"chain": "nested"})
CELERY_DJANGO_DB_TUNED = _system(
    "celery-django-db-tuned", TUNED_POLL_S, {"chain": "nested", "chains": "nested", "fan_out": "chord"}
)
