"""The fuzzer finds nothing, in few cases that are always the same; `make fuzz` searches longer."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_the_fuzzer_finds_nothing() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-s", "tests/fuzz"]
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"FMSD_FUZZ": "fixed"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-20_000:]
