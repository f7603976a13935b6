import json
import logging
import logging.config
from collections.abc import Callable, Iterator

import pytest
from celery import signals

from flows import logs
from flows.domain.errors import InvalidInputError

CALL = {"id": "p.0", "root_id": "p", "group": "g", "function": "f", "attempt": 2, "node": "g@host"}

FIELDS = {
    "change": "failed",
    "promise_id": "p.0",
    "root_id": "p",
    "attempt": 2,
    "node": "g@host",
    "error_type": "ValueError",
}


@pytest.fixture
def write(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[str], list[str]]]:
    """Log a change and an error as a project does that uses our configuration; return the lines."""
    root, handlers, level = logging.getLogger(), logging.getLogger().handlers[:], logging.getLogger().level

    def write(log_format: str) -> list[str]:
        logging.config.dictConfig(logs.logging_config(log_format))
        logs.tell(logs.NOTABLE, "failed", CALL, error_type="ValueError", retry_in_s=1.5)
        logs.tell(logs.ROUTINE, "claimed", CALL)
        try:
            int("boom")
        except ValueError:
            logging.getLogger("flows.worker").exception("it failed")
        return capsys.readouterr().err.splitlines()

    yield write
    root.handlers[:] = handlers
    root.setLevel(level)


def test_json_lines_have_the_fields(write):
    change, error = [json.loads(line) for line in write("json")]
    assert {name: value for name, value in change.items() if name in FIELDS} == FIELDS
    assert (change["level"], change["logger"], change["retry_in_s"]) == ("info", "flows.changes", 1.5)
    assert error["exception"].endswith("with base 10: 'boom'")


def test_text_says_the_same_to_people(write):
    line = write("console")[0]
    assert "promise p.0 failed: g.f, attempt 2 on g@host, error type ValueError, retry in s 1.5" in line
    assert "\x1b[" not in line


def test_another_format_is_refused():
    with pytest.raises(InvalidInputError, match="may be json or console, and is 'xml'"):
        logs.logging_config("xml")


def test_celery_logs_like_the_project_at_its_own_level(write, capsys):
    try:
        logs.use_in_celery(logs.logging_config("json"))
        signals.setup_logging.send(sender=None, loglevel=logging.ERROR)
        logging.getLogger("celery.worker").warning("not wanted")
        logging.getLogger("celery.worker").error("wanted")
        assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["wanted"]
    finally:
        signals.setup_logging.receivers.clear()
