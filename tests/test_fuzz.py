"""The fuzzer finds nothing, in few cases that are always the same; `make fuzz` searches longer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_the_fuzzer_finds_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-s", "tests/fuzz"]
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"FMSD_FUZZ": "fixed", "FMSD_TEST_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-20_000:]
