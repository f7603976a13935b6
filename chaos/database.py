"""Reads the database of the run, also while it is being restarted."""

import time
from collections.abc import Callable
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg.rows import dict_row

R = TypeVar("R")

RETRY_S = 0.1
CONNECT_S = 3


class Database:
    """The database at a URL; each statement has a connection of its own, so none is ever stale."""

    def __init__(self, url: str) -> None:
        self._url = url

    def rows(self, statement: LiteralString, **params: Any) -> list[dict[str, Any]]:
        """Run a statement that may run twice, and return its rows; waits while PostgreSQL is away."""
        return persist(lambda: self._rows(statement, params), psycopg.OperationalError)

    def _rows(self, statement: LiteralString, params: dict[str, Any]) -> list[dict[str, Any]]:
        with psycopg.connect(self._url, autocommit=True, row_factory=dict_row, connect_timeout=CONNECT_S) as connection:
            cursor = connection.execute(statement, params)
            return cursor.fetchall() if cursor.description else []


def persist(act: Callable[[], R], *errors: type[Exception]) -> R:
    """Return what ``act`` returns, trying again for as long as it raises one of ``errors``."""
    while True:
        try:
            return act()
        except errors:
            time.sleep(RETRY_S)
