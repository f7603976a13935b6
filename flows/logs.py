"""One log line per change of state: a text for people, and fields for machines. Never a payload: of an error its type.

The lines are ordinary records of the logger ``flows.changes``, with the fields as attributes: whatever a project does
with its logs, it may do with them. ``logging_config`` is for projects that want JSON lines, or readable ones, at once.
Nothing here touches a project's logging by itself.
"""

import logging
import logging.config
import sys
from typing import Any

from flows.domain.errors import InvalidInputError

changes = logging.getLogger("flows.changes")

# What happens all the time, what is worth a line in production, what somebody should look at, and must.
ROUTINE, NOTABLE, TROUBLE, STUCK = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR

FORMATS = ("json", "console")


def tell(level: int, change: str, call: dict[str, Any], **fields: Any) -> None:
    """Log that a promise changed.

    ``call`` has its ``id``, ``root_id``, ``group`` and ``function``, and, if there is one, the ``attempt`` and the
    ``node`` that it is about; ``fields`` are more, in the order in which the text shows them.
    """
    if not changes.isEnabledFor(level):
        return
    known = {name: call[name] for name in ("group", "function", "attempt", "node") if call.get(name) is not None}
    attempt = f", attempt {known['attempt']}" if "attempt" in known else ""
    node = f" on {known['node']}" if "node" in known else ""
    more = "".join(f", {name.replace('_', ' ')} {value}" for name, value in fields.items())
    changes.log(
        level,
        "promise %s %s: %s.%s%s%s%s",
        call["id"], change, call["group"], call["function"], attempt, node, more,
        extra={"change": change, "promise_id": call["id"], "root_id": call["root_id"], **known, **fields},
    )  # fmt: skip


def logging_config(log_format: str, level: str = "INFO") -> dict[str, Any]:
    """Return what a project may put into Django's LOGGING: all records on standard error, as ``json`` or ``console``.

    JSON lines have ``timestamp``, ``level``, ``logger``, ``event``, and the fields of the record.
    """
    if log_format not in FORMATS:
        raise InvalidInputError("log_format", f"may be {' or '.join(FORMATS)}, and is {log_format!r}")
    import structlog

    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    final: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if log_format == "json":
        shared.append(structlog.processors.format_exc_info)
        final.append(structlog.processors.JSONRenderer(ensure_ascii=False, default=str))
    else:
        # The text says it all: fields are for machines.
        is_terminal = sys.stderr.isatty()
        plain = structlog.dev.plain_traceback
        final += [
            _text_only,
            structlog.dev.ConsoleRenderer(colors=is_terminal, pad_event_to=0, exception_formatter=plain),
        ]
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "flows": {
                "()": structlog.stdlib.ProcessorFormatter,
                "processors": final,
                "foreign_pre_chain": shared,
            }
        },
        "handlers": {"flows": {"class": "logging.StreamHandler", "formatter": "flows"}},
        "root": {"handlers": ["flows"], "level": level},
        # Django gives these handlers of their own.
        "loggers": {name: {"handlers": [], "propagate": True} for name in ("django", "django.server")},
    }


def use_in_celery(config: dict[str, Any]) -> None:
    """Have Celery's workers log by ``config``, at the level of their command line, and not in Celery's own way."""
    from celery import signals

    def set_up(loglevel: int | str | None = None, **_: Any) -> None:
        logging.config.dictConfig(config)
        if loglevel:
            logging.getLogger().setLevel(loglevel)

    signals.setup_logging.connect(set_up, weak=False, dispatch_uid="flows.logs")


def _text_only(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:
    shown = ("timestamp", "level", "logger", "event", "exc_info", "exception", "stack_info")
    return {name: event[name] for name in shown if name in event}
