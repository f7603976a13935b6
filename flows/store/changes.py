"""Tells the log what statements changed, once that is committed. Their rows have id, root_id, group and function."""

from collections.abc import Sequence

from django.db import transaction

from flows import logs
from flows.conf import settings
from flows.store.sql import Row


def tell(level: int, change: str, changed: Sequence[Row]) -> None:
    """Tell of each row; of the ``attempt`` and the ``node`` too, where the rows have them."""
    if changed and logs.changes.isEnabledFor(level):
        transaction.on_commit(lambda: _tell(level, change, changed), using=settings.DATABASE, robust=True)


def _tell(level: int, change: str, changed: Sequence[Row]) -> None:
    for row in changed:
        logs.tell(level, change, row)
