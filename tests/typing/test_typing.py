"""What type checkers make of the public names: right.py has no error, wrong.py those that its lines announce."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

# As users run it: strict, and without a plugin.
CONFIG = """
[mypy]
strict = true
python_version = 3.11
warn_unreachable = true
follow_imports = silent
explicit_package_bases = true
show_error_codes = true
color_output = false
pretty = false
"""

ERROR = re.compile(r"^(?P<file>[^:\n]+):(?P<line>\d+): error: .*\[(?P<code>[a-z-]+)\]$", re.MULTILINE)
ANNOUNCED = re.compile(r"# E: (?P<codes>[a-z -]+)$")


@pytest.fixture(scope="module")
def check(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., set[tuple[int, str]]]:
    config = tmp_path_factory.mktemp("typing") / "mypy.ini"
    config.write_text(CONFIG)
    cache = pytestconfig.cache.mkdir("mypy")

    def run(name: str, *flags: str) -> set[tuple[int, str]]:
        own = (f"--config-file={config}", f"--cache-dir={cache}/{name}")
        command = [sys.executable, "-m", "mypy", *own, *flags, str(HERE / name)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
        assert done.returncode in (0, 1), done.stdout + done.stderr
        found = {(int(error["line"]), error["code"]) for error in ERROR.finditer(done.stdout)}
        # Every error is one that was understood, and of this file.
        assert bool(found) == bool(done.returncode), done.stdout
        assert all(Path(error["file"]).name == name for error in ERROR.finditer(done.stdout)), done.stdout
        return found

    return run


def announced(name: str) -> set[tuple[int, str]]:
    lines = (HERE / name).read_text().splitlines()
    return {
        (number, code)
        for number, line in enumerate(lines, 1)
        if (comment := ANNOUNCED.search(line))
        for code in comment["codes"].split()
    }


def test_right_uses_have_the_types_that_they_assert(check):
    assert check("right.py") == set()


def test_wrong_uses_are_found_where_they_are(check):
    # Off even in strict mode: it finds calls that nobody awaits.
    found = check("wrong.py", "--enable-error-code=unused-awaitable")
    wanted = announced("wrong.py")
    assert found - wanted == set(), "errors that no comment announces"
    assert wanted - found == set(), "errors that were not found"
    assert len({line for line, _ in wanted}) > 60


def test_the_examples_read_only_public_names():
    for name in ("right.py", "wrong.py"):
        assert "from flows." not in (HERE / name).read_text()
