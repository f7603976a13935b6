"""The short form of `make chaos`: the same code, a fixed seed, and the report's figures."""

import json
import os
import signal
import subprocess
import sys

import pytest

from local.lifeline import tied
from local.process import ROOT

SEED = 1
MINUTES = 1.2


@pytest.mark.timeout(300)
def test_no_invariant_breaks_while_everything_is_killed(tmp_path):
    found = tmp_path / "report.json"
    folder = tmp_path / "chaos"
    command = [sys.executable, "-m", "chaos", f"--seed={SEED}", f"--minutes={MINUTES}", f"--folder={folder}"]
    environ = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
    done = subprocess.run(
        tied([*command, f"--report={found}"], signal.SIGTERM),
        cwd=ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(found.read_text()) if found.exists() else {}
    assert report.get("violations") == [], done.stdout + done.stderr
    assert sum(shape["flows"] for shape in report["shapes"].values()) >= 300
    assert all(shape["settled"] == shape["flows"] for shape in report["shapes"].values()), done.stdout
    assert report["share_in_time"] >= 0.95
    assert sum(fault["injected"] for fault in report["faults"].values()) >= 10
    assert "unexplained" not in report["repeats"]
    assert (report["is_good"], done.returncode) == (True, 0)
