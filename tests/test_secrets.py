"""Secrets on the command line and in the environment are in no file of a run, and not printed."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from mlflow.tracking import MlflowClient

from tests.conftest import fmsd_command, grow_tree

pytestmark = pytest.mark.slow

TINY = (
    *("data=folder", "data.root=data", "trainer=smoke", "trainer.accelerator=cpu", "method=probe"),
    *("backbone=vit_tiny", "backbone.pretrained=false", "backbone.size=32"),
    *("+backbone.patch_size=8", "+backbone.embed_dim=24", "+backbone.depth=2"),
    "+backbone.num_heads=2",
)

PLANTED = (
    "logger.mlflow.uri=${oc.env:STORE}",
    "+note=${oc.env:NOTE}",
    "+nested.note=seen/${note}",
    "+nested.default='${oc.env:ABSENT,${oc.env:NOTE}}'",
    "+copied.api_key=canary-argument",
    "+copied.uri='http://user:canary-password@host/path?sig=canary-signature'",
    "+copied.text=canary-of-the-environment",
)

CANARY = b"canary"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Somewhere to work, with data."""
    grow_tree(tmp_path / "work" / "data", domains=("real", "swap"), videos=4)
    return tmp_path / "work"


def environment(place: Path) -> dict[str, str]:
    """A user whose secrets are in the environment, and who works offline."""
    home = place.parent / "home"
    home.mkdir(exist_ok=True)
    folders = ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR")
    return {
        "HOME": str(home),
        "WANDB_MODE": "offline",
        "WANDB_API_KEY": "canary01" * 5,
        "STORE": f"sqlite:///{place.parent}/canary-store.db",
        "NOTE": "canary-of-a-note",
        "SOME_TOKEN": "canary-of-the-environment",
        **{name: str(home / name) for name in folders},
    }


def fmsd(place: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Runs fmsd as this user; what it prints holds no canary."""
    ended = fmsd_command(*words, cwd=place, **(environment(place) | more))
    assert "canary" not in ended.stdout + ended.stderr
    return ended


def leaks(folder: Path) -> list[str]:
    """The files below a folder that hold a canary, in their bytes or in their name."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    assert files
    return [
        str(path.relative_to(folder))
        for path in files
        if CANARY in path.read_bytes().lower() or CANARY in str(path).encode()
    ]


def test_no_file_of_a_run_holds_a_secret(place: Path) -> None:
    words = ("logger=[wandb,tensorboard,mlflow]", *PLANTED, "hydra.run.dir=run")
    ended = fmsd(place, "train", *TINY, *words)
    assert ended.returncode == 0, ended.stderr
    assert leaks(place) == []
    run = place / "run"
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["logger"]["mlflow"]["uri"] == "${oc.env:STORE}"
    assert config["nested"] == {
        "note": "seen/${oc.env:NOTE}",
        "default": "${oc.env:ABSENT,${oc.env:NOTE}}",
    }
    assert config["copied"] == {
        "api_key": "***",
        "uri": "http://user:***@host/path?sig=***",
        "text": "***",
    }
    assert config["data"]["root"] == str(place / "data")
    command = json.loads((run / "run.json").read_text())["command"]
    assert "logger.mlflow.uri=${oc.env:STORE}" in command
    assert "+copied.api_key=***" in command
    client = MlflowClient(environment(place)["STORE"])
    (experiment,) = client.search_experiments(filter_string="name = 'fmsd'")
    (logged,) = client.search_runs([experiment.experiment_id])
    assert logged.data.params["copied.text"] == "***"
    assert CANARY not in str(logged.data).encode()

    trust = "trust='[fmsd.tracking.mlflow.]'"
    ended = fmsd(place, "evaluate", "run=run")
    assert ended.returncode == 0, ended.stderr
    assert f"(logger.mlflow.uri=${{oc.env:STORE}}); if they shall go there, give {trust}" in (
        " ".join(ended.stderr.split())
    )
    ended = fmsd(place, "report", "runs=run", "out=report")
    assert ended.returncode == 0, ended.stderr
    assert "stands for a password or token" in (place / "report" / "report.html").read_text()
    assert leaks(place) == []


def test_no_file_of_a_sweep_holds_a_secret_and_a_failed_job_names_none(place: Path) -> None:
    sweep = ("-m", "logger=mlflow", "seed=0,1", "hydra.sweep.dir=sweep")
    sweep = (*sweep, "hydra.output_subdir=.hydra")
    broken = {"STORE": "postgresql+nothing://canary/store"}
    ended = fmsd(place, "train", *TINY, *sweep, *PLANTED, **broken)
    assert ended.returncode == 2, ended.stderr
    errors = [path.read_text() for path in (place / "sweep").glob("*/error.txt")]
    assert len(errors) == 2
    assert all("The logger mlflow does not work" in error for error in errors)
    assert leaks(place) == []
    # a new password is no new job
    changed = (word.replace("canary-password", "canary-changed") for word in PLANTED)
    assert fmsd(place, "train", *TINY, *sweep, *PLANTED).returncode == 0
    again = fmsd(place, "train", *TINY, *sweep, *changed)
    assert "2 finished before (skipped)" in again.stdout
    assert leaks(place) == []


def interrupted(place: Path, words: Sequence[str]) -> Path:
    """The folder of a run whose tests have not begun."""
    assert fmsd(place, "train", *TINY, *words, "hydra.run.dir=run").returncode == 0
    (place / "run" / "results.csv").unlink()
    (place / "run" / "run.json").unlink()
    return place / "run"


def test_a_value_that_is_not_recorded_is_given_again(place: Path) -> None:
    store = f"sqlite:///{place.parent}/store.db?token=canary-password"
    run = interrupted(place, ["logger=mlflow", f"logger.mlflow.uri='{store}'"])
    assert leaks(place) == []
    refused = fmsd(place, "train", f"resume={run}", "trust=[fmsd.tracking.mlflow.]")
    assert refused.returncode == 2
    assert "logger.mlflow.uri without its password or token" in refused.stderr
    assert "give the whole value again: logger.mlflow.uri=VALUE" in refused.stderr
    other = fmsd(place, "train", f"resume={run}", "logger.mlflow.project=mine")
    assert other.returncode == 2
    ended = fmsd(place, "train", f"resume={run}", f"logger.mlflow.uri='{store}'")
    assert ended.returncode == 0, ended.stderr
    ended = fmsd(place, "evaluate", f"run={run}", f"logger.mlflow.uri='{store}'")
    assert ended.returncode == 0, ended.stderr
    assert "not used" not in ended.stderr
    assert leaks(place) == []


def test_a_variable_that_is_looked_up_again_and_missing_is_named(place: Path) -> None:
    run = interrupted(place, ["logger=mlflow", "logger.mlflow.uri=${oc.env:STORE}"])
    words = ("train", f"resume={run}", "trust=[fmsd.tracking.mlflow.]")
    without = {name: value for name, value in environment(place).items() if name != "STORE"}
    refused = fmsd_command(*words, cwd=place, **without)
    assert refused.returncode == 2
    assert "looks up the environment variable STORE, which is not set" in refused.stderr
    assert refused.stderr.count("\n") == 1
    ended = fmsd(place, *words)
    assert ended.returncode == 0, ended.stderr
