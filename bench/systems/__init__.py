"""The systems that are measured, a module for each side. None imports what it measures before its client is made."""

from bench.system import Side, System
from bench.systems import dbos
from bench.systems.celery import CELERY_CHAIN, CELERY_CHORD, CELERY_NESTED
from bench.systems.celery_django_db import CELERY_DJANGO_DB, CELERY_DJANGO_DB_TUNED
from bench.systems.flows import FLOWS, FLOWS_SECOND

OF_DBOS = (dbos.DBOS, dbos.DBOS_TUNED)
SYSTEMS: tuple[System, ...] = (
    FLOWS,
    CELERY_NESTED,
    CELERY_CHAIN,
    CELERY_CHORD,
    CELERY_DJANGO_DB,
    CELERY_DJANGO_DB_TUNED,
    *OF_DBOS,
)
SIDES: dict[str, Side] = {system.side.name: system.side for system in (*SYSTEMS, FLOWS_SECOND)}
# What `celery` is short for: the systems that all others are compared with.
BASES = (CELERY_NESTED, CELERY_CHORD)


def installed() -> list[System]:
    """Return the systems whose packages are there."""
    return [system for system in SYSTEMS if dbos.is_installed() or system not in OF_DBOS]
