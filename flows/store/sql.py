"""Runs one statement on the database of the promises."""

from collections.abc import Mapping
from typing import Any, LiteralString

import psycopg
from django.db import InterfaceError, InternalError, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg.errors import DeadlockDetected, LockNotAvailable
from psycopg.rows import dict_row

from flows.conf import settings

Row = dict[str, Any]


def connection() -> BaseDatabaseWrapper:
    """Return this thread's Django connection to the database of the promises."""
    return connections[settings.DATABASE]


def ensured() -> psycopg.Connection[Any]:
    """Return the driver's own connection of this thread; opens it if need be."""
    django = connection()
    django.ensure_connection()
    raw: psycopg.Connection[Any] = django.connection
    return raw


def repeatable_rows(statement: LiteralString, **params: Any) -> list[Row]:
    """As ``rows``, for a statement that may run twice: sent again, once, if the connection turns out to be dead."""
    may_be_dead = connection().connection is not None and not connection().in_atomic_block
    try:
        return rows(statement, **params)
    except (OperationalError, InterfaceError):
        if not may_be_dead:
            raise
        return rows(statement, **params)


def rows(statement: LiteralString, **params: Any) -> list[Row]:
    """Run ``statement`` and return its rows, by column name.

    Binds on the server, so that statements are prepared where the connection's ``prepare_threshold`` allows it. Raises
    Django's ``OperationalError`` or ``InterfaceError`` if the database is away, ``InternalError`` if it is read-only;
    the connection is then dropped, so that the next statement opens a new one, perhaps to another server. Not if it was
    only others' locks that were in the way (``is_about_locks``).
    """
    django = connection()
    try:
        with django.wrap_database_errors, psycopg.Cursor(ensured(), row_factory=dict_row) as cursor:
            cursor.execute(statement, _none_if_empty(params))
            return cursor.fetchall() if cursor.pgresult and cursor.pgresult.nfields else []
    except (OperationalError, InterfaceError, InternalError) as error:
        if not django.in_atomic_block and not is_about_locks(error):
            django.close()
        raise


def is_about_locks(error: BaseException) -> bool:
    """Return True for a deadlock, and for a lock that was waited for too long: the connection is none the worse."""
    return isinstance(error.__cause__, DeadlockDetected | LockNotAvailable)


def _none_if_empty(params: Mapping[str, Any]) -> Mapping[str, Any] | None:
    # Without parameters psycopg leaves the statement alone, so that it may hold a plain %.
    return params or None
