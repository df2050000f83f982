"""Which libraries a command imports: help answers at once, and verbs about tables need no trainer.

Imported modules are counted in a fresh interpreter, not the time, which depends on the machine.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf

from fmsd.package_files import CONF
from tests.conftest import grow_tree, write_image
from tests.foreign_runs import RECORD
from tests.runs import finished

HEAVY = {
    "torch", "numpy", "polars", "hydra", "omegaconf", "lightning", "timm", "torchvision", "wandb",
    "matplotlib", "albumentations", "cv2", "av", "rich", "huggingface_hub",
}  # fmt: skip
"""Libraries that take time to import."""

PROGRAM = """
import json, sys
from fmsd.cli.main import main
code = main(sys.argv[1:])
print(json.dumps([code, sorted(name for name in sys.modules if "." not in name)]))
"""


def modules_of(arguments: Sequence[str], cwd: Path) -> tuple[int, set[str]]:
    """The exit code of a command, and the heavy libraries that it imported."""
    command = [sys.executable, "-c", PROGRAM, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd)
    code, names = json.loads(ended.stdout.splitlines()[-1])
    return code, HEAVY & set(names)


@pytest.mark.parametrize(
    "verb",
    [
        ["predict", "photo.png"],
        ["demo"],
    ],
    ids=" ".join,
)
def test_a_run_that_is_none_is_refused_before_torch_is_imported(
    verb: list[str], tmp_path: Path
) -> None:
    write_image(tmp_path / "photo.png", 0)
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.yaml").touch()
    for run, message in (
        ("gone", "gone does not exist; correct the path of the run."),
        ("gone.onnx", "gone.onnx does not exist; "),
        ("begun", "begun is not finished (it has no run.json yet); go on with fmsd train resume="),
    ):
        command = [sys.executable, "-c", PROGRAM, *verb, f"run={run}"]
        ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        code, names = json.loads(ended.stdout.splitlines()[-1])
        assert code == 2
        assert message in ended.stderr
        assert not {"torch", "lightning"} & set(names)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["completion", "bash"],
        ["_complete", "zsh", "train", "method=f"],
        ["train", "--help"],
        ["doctor", "--help", "data=ff++"],
        ["trian"],
    ],
    ids=" ".join,
)
def test_help_imports_no_library(arguments: list[str], tmp_path: Path) -> None:
    code, imported = modules_of(arguments, tmp_path)
    assert code == (2 if arguments == ["trian"] else 0)
    assert not imported


def test_the_module_is_a_program(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fmsd", "--version"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert ended.stdout.startswith("fmsd ")


@pytest.mark.parametrize("verb", ["doctor", "index"])
def test_verbs_about_data_import_no_trainer(verb: str, tmp_path: Path) -> None:
    grow_tree(tmp_path / "data", videos=1)
    out = "out=x.json" if verb == "doctor" else "out=x.parquet"
    code, imported = modules_of([verb, "data=folder", "data.root=data", out], tmp_path)
    assert code == 0
    assert "polars" in imported
    assert not imported & {"lightning", "wandb", "timm", "huggingface_hub"}
    assert ("torch" in imported) == (verb == "doctor")


def test_report_imports_no_trainer(tmp_path: Path) -> None:
    finished(tmp_path / "runs" / "one", ["data=ff"], 0)
    code, imported = modules_of(["report", "runs=runs", "out=out"], tmp_path)
    assert code == 0
    heavy = {"lightning", "wandb", "timm", "albumentations", "cv2", "torchvision"}
    assert not imported & {*heavy, "huggingface_hub"}


def test_fold_imports_no_trainer(tmp_path: Path) -> None:
    """The run names Lightning's trainer and a logger, which folding does not build; timm imports
    wandb by itself.
    """
    run = tmp_path / "run"
    run.mkdir()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = ["data=folder", "data.root=/nowhere", "backbone=demo_vit", "logger=wandb"]
        config = OmegaConf.to_container(hydra.compose("train", overrides), resolve=True)
    assert isinstance(config, dict)
    kept = {key: value for key, value in config.items() if key not in ("resume", "trust")}
    (run / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(kept)))
    (run / "run.json").write_text(json.dumps(RECORD))
    code, imported = modules_of(["fold", "run=run", "out=x.safetensors"], tmp_path)
    assert code == 2  # the run has no weights
    assert "timm" in imported
    assert not imported & {"lightning", "albumentations", "cv2"}
