"""The script for a GPU runs on a CPU, and needs only what a usual GPU image has."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
SITE = Path(torch.__file__).parents[1]
ABSENT = re.compile(
    r"(hydra|omegaconf|polars|albumentations|albucore|av|wandb|simplejpeg|pandas|cv2|starlette)"
    r"([._-].*)?"
)
"""Names in a site-packages folder of packages that a GPU image lacks."""


def run_script(folder: Path, *words: str) -> tuple[subprocess.CompletedProcess[str], dict]:
    """Runs the script in an environment without those packages; returns what it wrote, too."""
    site = folder / "site"
    site.mkdir()
    for place in SITE.iterdir():
        if not ABSENT.fullmatch(place.name.lower()) and place.suffix != ".pth":
            (site / place.name).symlink_to(place)
    out = folder / "gpu.json"
    done = subprocess.run(
        [sys.executable, "-S", "benchmarks/gpu.py", "--tiny", "--json", str(out), *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.is_file(), done.stderr
    return done, json.loads(out.read_text(encoding="utf-8"))


def test_parts_that_do_not_fit_into_the_minutes_are_named(tmp_path: Path) -> None:
    done, written = run_script(tmp_path, "--minutes", "0")
    assert done.returncode == 0, done.stderr
    assert written["rows"] == []
    assert "0 s are left of 0 minutes" in written["missing"]["exactness"]
    assert "loader left out" in done.stdout


@pytest.mark.slow
def test_every_part_measures_without_the_packages_of_data_and_configurations(
    tmp_path: Path,
) -> None:
    done, written = run_script(tmp_path, "--minutes", "60")
    assert "Traceback" not in done.stderr
    assert list(written["missing"]) == ["loader"], done.stdout  # whose packages are not there
    figures = {line["name"]: line for line in written["rows"]}
    assert figures["elements changed by a step of RoGA"]["value"] == 0
    assert figures["elements that differ after resuming"]["value"] == 0
    assert figures["error of gradients, float32"]["value"] < 1e-5
    assert figures["fmsd / peft LoRA"]["value"] > 0
    assert {"RoGA, k = 8 / ERM", "fmsd, compiled / eager", "detector / timm"} <= figures.keys()
