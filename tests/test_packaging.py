"""The wheel and the source distribution: their files, and that they work in an empty environment,
outside the checkout.
"""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl
import pytest
import yaml

from tests.conftest import ROOT
from tests.installed import EXAMPLE

VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

FOREIGN = ("PYTHON", "FMSD_", "VIRTUAL_ENV", "COVERAGE", "COV_", "XDG_")
"""Beginnings of the environment variables that lead to another Python or its files."""


def build(*arguments: str | Path) -> None:
    """Runs the build that `make dist` runs."""
    subprocess.run([sys.executable, "-m", "build", *arguments, ROOT], check=True)


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of `make dist`: FMSD_TEST_DIST is their folder, or they are built here."""
    if built := os.environ.get("FMSD_TEST_DIST"):
        return Path(built).resolve()
    folder = tmp_path_factory.mktemp("dist")
    build("--outdir", folder)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (path,) = dist.glob("fmsd-*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A virtual environment with the wheel, what it requires, and the example of a plugin."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, env=clean_variables())
    pip = [folder / "bin" / "pip", "install", "-q", "--disable-pip-version-check", "--no-compile"]
    subprocess.run(
        [*pip, "-c", ROOT / "constraints.txt", wheel, EXAMPLE],
        check=True,
        env=clean_variables(),
        cwd=folder,
    )
    yield folder
    shutil.rmtree(folder)  # a gigabyte, which pytest would keep


def clean_variables(**variables: str) -> dict[str, str]:
    """The environment variables of a shell that knows nothing of this checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return kept | variables


def contents(wheel: Path) -> Mapping[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == VERSION
    headings = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if "## [" in line]
    assert headings[0] == "## [Unreleased]"
    assert headings[1].startswith(f"## [{VERSION}] - ")


@pytest.mark.slow
def test_wheel_holds_the_package_and_its_configuration_files_only(wheel: Path) -> None:
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "fmsd").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    shipped = [
        *(path for path in (ROOT / "conf").rglob("*") if path.is_file()),
        *(ROOT / "experiments").rglob("*.yaml"),
        *(ROOT / "experiments").rglob("*.csv"),
    ]
    configuration = {
        f"fmsd/conf/{path.relative_to(ROOT).as_posix().removeprefix('conf/')}" for path in shipped
    }
    assert {
        "fmsd/py.typed",
        "fmsd/models/demo_vit.safetensors",
        "fmsd/inference/page/demo.js",
        "fmsd/inference/page/index.html",
        "fmsd/report/page.css",
        "fmsd/report/page.js",
    } <= package
    assert {"fmsd/conf/train.yaml", "fmsd/conf/experiments/generalise.csv"} <= configuration
    files = contents(wheel)
    assert {name for name in files if ".dist-info/" not in name} == package | configuration
    places = (str(ROOT).encode(), f"{Path.home()}/".encode())
    assert not [name for name, data in files.items() if any(place in data for place in places)]


@pytest.mark.slow
def test_source_distribution_builds_the_wheel_of_the_checkout(wheel: Path, tmp_path: Path) -> None:
    build("--wheel", "--outdir", tmp_path)
    assert contents(tmp_path / wheel.name) == contents(wheel)


@pytest.mark.slow
def test_empty_environment_trains_evaluates_and_reports(environment: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()

    def fmsd(*arguments: str) -> str:
        ended = subprocess.run(
            [environment / "bin" / "fmsd", *arguments],
            cwd=tmp_path,
            env=clean_variables(HOME=str(home)),
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    assert fmsd("--version") == f"fmsd {VERSION}\n"
    assert "fmsd VERB" in fmsd("--help")
    fmsd("train", "-m", "experiments=demo", "trainer=smoke", "trainer.max_epochs=1",
         "hydra.sweep.dir=runs")  # fmt: skip
    fmsd("evaluate", f"run={next((tmp_path / 'runs').glob('*probe*'))}")
    fmsd("report", "runs=runs", "out=report")
    results = pl.read_csv(tmp_path / "report" / "results.csv")
    assert set(results["run"]) == {"fmsd", "full", "probe"}
    assert set(results["dataset"]) >= {"synthetic", "synthetic_shift"}
    assert (tmp_path / "report" / "report.html").is_file()
    fmsd("train", "method=ia3", "data=synthetic", "trainer=smoke", "hydra.run.dir=plugin")
    assert (tmp_path / "plugin" / "results.csv").is_file()
