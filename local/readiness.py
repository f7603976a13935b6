"""Asks the stack's processes whether they are ready, without loading Django."""

from http import HTTPStatus
from http.client import HTTPConnection, HTTPException

from celery import Celery


def answers_ready(host: str, port: int) -> bool:
    """Tell whether `GET /readyz` answers 200."""
    connection = HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def responding_workers(broker_url: str, *, expected: int) -> int:
    """Count the Celery workers that answer a ping, for one second at most.

    On a connection of its own: one from Celery's pool, which the whole process shares, may have died with an
    earlier Redis at this URL.
    """
    if not expected:
        return 0
    with Celery(broker=broker_url, set_as_current=False) as app, app.connection_for_write() as connection:
        replies = app.control.broadcast("ping", reply=True, timeout=1, limit=expected, connection=connection)
    return len(replies or ())
