import os
import signal
import subprocess
import sys
from pathlib import Path

PROGRAM = "from hub.failpoint import failpoint\nfor _ in range(3): failpoint('a.b'); print('alive', flush=True)"


def run(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def test_a_failpoint_that_nobody_asked_for_does_nothing():
    assert run().stdout.split() == ["alive"] * 3


def test_the_process_dies_at_the_hit_that_was_asked_for():
    died = run(PAYHUB_FAILPOINT="a.b:2")
    assert died.returncode == -signal.SIGKILL
    assert died.stdout.split() == ["alive"]


def test_once_means_once_across_restarts(tmp_path: Path):
    once = {"PAYHUB_FAILPOINT": "a.b", "PAYHUB_FAILPOINT_ONCE": str(tmp_path)}
    assert run(**once).returncode == -signal.SIGKILL
    assert run(**once).returncode == 0
