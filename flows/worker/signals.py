"""What Celery tells about messages that were not run: names that nobody here knows, and revoked task ids."""

import logging
from typing import Any

from celery.signals import task_revoked, task_unknown
from django.db import DatabaseError, InterfaceError

from flows.domain.errors import PromiseNotFound

log = logging.getLogger(__name__)


@task_unknown.connect(dispatch_uid="flows.unknown")
def note_unknown(*, id: str, name: str, sender: Any, **_: Any) -> None:
    """Record why the promise does not go on; it stays pending and is sent again."""
    from flows.store import promises

    try:
        promises.note(id, f"{sender.hostname} knows no function {name!r}; deploy it, or cancel this promise")
    except (DatabaseError, InterfaceError) as error:
        log.warning("could not note that %s is unknown: %s", name, error)


@task_revoked.connect(dispatch_uid="flows.revoked")
def cancel_revoked(*, request: Any, expired: bool, **_: Any) -> None:
    """Cancel the promise of a revoked task. A message that expired says nothing about its promise."""
    if expired:
        return
    from flows import operations

    try:
        operations.cancel(request.id)
    except PromiseNotFound:
        pass
    except (DatabaseError, InterfaceError) as error:
        log.warning("could not cancel revoked promise %s: %s", request.id, error)
