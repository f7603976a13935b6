"""The command as a shell runs it, with its exit code and what it wrote."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from django.core.management import ManagementUtility


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[list[str]]:
        return [line.split("\t") for line in self.out.splitlines()]


Run = Callable[..., Ran]


@pytest.fixture
def run(transactional_db: None, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*args: str) -> Ran:
        with pytest.raises(SystemExit) as ended:
            ManagementUtility(["manage.py", "flows", *args]).execute()
        written = capsys.readouterr()
        return Ran(code=int(ended.value.code or 0), out=written.out, err=written.err)

    return run
