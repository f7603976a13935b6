"""The systems that are measured, a module for each side. None imports what it measures before its client is made."""

from bench.system import Side, System
from bench.systems.celery import CELERY_CHAIN, CELERY_CHORD, CELERY_NESTED
from bench.systems.flows import FLOWS

SYSTEMS: tuple[System, ...] = (FLOWS, CELERY_NESTED, CELERY_CHAIN, CELERY_CHORD)
SIDES: dict[str, Side] = {system.side.name: system.side for system in SYSTEMS}
# What `celery` is short for: the systems that all others are compared with.
BASES = (CELERY_NESTED, CELERY_CHORD)
