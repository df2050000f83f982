"""Merges that are refused, in one sentence and without writing anything."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from fmsd.cli.main import main
from fmsd.models.detector import detector
from fmsd.runs.folder import Run
from tests.runs import sealed
from tests.specialists import RUNS, fold_specialists, record

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def place(specialists: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the specialists, as the working directory."""
    monkeypatch.chdir(specialists)
    return specialists


@pytest.fixture
def folded(place: Path) -> dict[str, dict[str, torch.Tensor]]:
    return fold_specialists(place)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Runs a merge that must be refused: one sentence, exit code 2, nothing written."""

    def check(*words: str) -> str:
        before = set(Path.cwd().rglob("*"))
        assert main(["merge", *words]) == 2
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fmsd: ")]
        assert len(said) == 1
        assert said[0].endswith(".")
        assert set(Path.cwd().rglob("*")) == before
        return said[0]

    return check


def test_too_few_experts_and_what_is_none(
    refused: Any, folded: dict[str, dict[str, torch.Tensor]]
) -> None:
    assert "no expert leaves nothing to merge" in refused("backbone=demo_vit")
    assert "1 expert leaves nothing to merge; give two or more" in refused("experts=[runs/fmsd]")
    assert "1 expert leaves nothing to merge" in refused("experts=runs/fmsd")
    assert "is given twice" in refused("experts=[runs/fmsd,runs/lora,runs/../runs/fmsd]")
    shutil.copy("runs/lora/../../lora.safetensors", "copy.safetensors")
    assert "are the same file twice" in refused(
        "experts=[lora.safetensors,copy.safetensors]", "backbone=demo_vit"
    )
    assert "There is no weights file" in refused("experts=[runs/fmsd,runs/nothing]")
    assert "is not the folder of a trained run" in refused("experts=[data,runs/fmsd]")
    assert "give backbone=NAME" in refused("experts=[fmsd.safetensors,lora.safetensors]")


def test_a_ceiling_that_is_not_two_seeds_of_one_specialist(refused: Any, place: Path) -> None:
    words = ("experts=[runs/fmsd,runs/lora]", "test=false")
    assert "there is 1 of them; give two runs or files of one specialist" in refused(
        *words, "ceiling=runs/lora"
    )
    assert "there is one twice" in refused(*words, "ceiling=[runs/lora,runs/lora]")
    assert "There is no weights file and no run" in refused(
        *words, "ceiling=[runs/lora,runs/nothing]"
    )
    assert "both have seed=0" in refused(*words, "ceiling=[runs/lora,runs/fmsd]")
    for run, origin, config in (
        ("other", {}, {"optimizer": {"lr": 0.5}}),
        ("elsewhere", {"train": {"folder": "0"}}, {}),
    ):
        shutil.copytree("runs/lora", f"twins/{run}")
        told = json.loads(Path("runs/lora/run.json").read_text())
        Path(f"twins/{run}/run.json").write_text(
            json.dumps({**told, "seed": 1, "origin": told["origin"] | origin})
        )
        OmegaConf.save(
            OmegaConf.merge(OmegaConf.load("runs/lora/config.yaml"), config),
            f"twins/{run}/config.yaml",
        )
        sealed(Run(Path(f"twins/{run}")))
    assert "are not one specialist: they differ in optimizer.lr" in refused(
        *words, "ceiling=[runs/lora,twins/other]"
    )
    assert "are not one specialist: they differ in train" in refused(
        *words, "ceiling=[runs/lora,twins/elsewhere]"
    )
    shutil.copytree("runs/lora", "twins/same")
    Path("twins/same/run.json").write_text(json.dumps({**told, "seed": 1}))
    assert "are the same file twice" in refused(*words, "ceiling=[runs/lora,twins/same]")


def test_another_architecture_base_or_head(
    refused: Any, place: Path, folded: dict[str, dict[str, torch.Tensor]]
) -> None:
    deep = detector(
        "vit_tiny_patch16_224",
        size=64,
        img_size=64,
        patch_size=8,
        embed_dim=160,
        depth=7,
        num_heads=5,
    )
    save_file(deep.backbone.state_dict(), "deep.safetensors")
    said = refused("experts=[runs/fmsd,deep.safetensors]")
    assert "deep.safetensors are not those of VisionTransformer" in said
    assert "unexpected: blocks.6" in said
    lacking = {
        name: tensor for name, tensor in folded["full"].items() if "blocks.2.mlp" not in name
    }
    save_file(lacking, "lacking.safetensors")
    assert "missing: blocks.2.mlp.fc1.bias" in refused("experts=[runs/fmsd,lacking.safetensors]")
    save_file(
        {**folded["full"], "head.weight": torch.zeros(5, 160), "head.bias": torch.zeros(5)},
        "five.safetensors",
    )
    assert "another head" in refused("experts=[runs/fmsd,five.safetensors]")
    save_file(
        {name: torch.randn_like(tensor) for name, tensor in folded["full"].items()},
        "stranger.safetensors",
    )
    assert "was trained from others; give its own base" in refused(
        "experts=[runs/fmsd,stranger.safetensors]"
    )
    save_file(
        {name: tensor + 1e-3 for name, tensor in folded["full"].items()}, "shifted.safetensors"
    )
    said = refused("experts=[runs/fmsd,runs/lora]", "base=shifted.safetensors")
    assert "belongs to other base weights" in said


def test_broken_weights_leave_nothing(
    refused: Any, folded: dict[str, dict[str, torch.Tensor]]
) -> None:
    for name in ("blocks.1.mlp.fc1.weight", "head.bias"):
        state = {key: tensor.clone() for key, tensor in folded["full"].items()}
        state[name].view(-1)[0] = torch.nan
        save_file(state, "broken.safetensors")
        assert f"hold NaN or infinity in {name} (1 of " in refused(
            "experts=[runs/fmsd,broken.safetensors]", "test=false"
        )
    Path("taken").touch()
    assert "taken is a file, where a folder is wanted" in refused(
        "experts=[runs/fmsd,runs/lora]", "out=taken", "test=false"
    )


def test_coefficients_and_searches_that_make_no_sense(refused: Any) -> None:
    words = (RUNS, "test=false")
    assert "There is no merger=mean; choose one of average" in refused(*words, "merger=mean")
    assert "merger.alpha=-1 is out of range; give at least 0" in refused(*words, "merger.alpha=-1")
    assert "merger.directions=4 does not fit 3 experts; give a whole number from 1 to 3" in refused(
        *words, "merger.directions=4"
    )
    assert "did you mean merger.density?" in refused(*words, "merger=ties", "merger.densty=1")
    assert "A search needs both" in refused(*words, "search=alpha=0.1,0.2")
    assert "A search needs both" in refused(*words, "on=folder")
    assert "search names 'beta', and R2M has directions" in refused(
        *words, "search=beta=0.1,0.2", "on=folder"
    )
    assert "is not of the form" in refused(*words, "search=alpha", "on=folder")
    assert "data.train names nowhere, but data=folder holds folder" in refused(
        *words, "search=alpha=0.1,0.2", "on=nowhere"
    )
    assert "each name once" in refused(*words, "search=alpha=0.1 alpha=0.2", "on=folder")
    files = (
        "experts=[fmsd.safetensors,lora.safetensors]",
        "backbone=demo_vit",
        "search=alpha=0.1,0.2",
        "on=folder",
    )
    assert "there is none; give data=NAME" in refused(*files)


def test_adding_to_what_does_not_fit(refused: Any, place: Path) -> None:
    if not Path("pair").exists():
        assert main(["merge", "experts=[runs/fmsd,runs/lora]", "out=pair", "test=false"]) == 0
    assert "give add=RUN_OR_FILE and to=MERGED" in refused("add=runs/full")
    assert "is not a merged run" in refused("add=runs/full", "to=runs/lora")
    assert "++merger.alpha=0.9 would change the recipe" in refused(
        "add=runs/full", "to=pair", "++merger.alpha=0.9"
    )
    assert "merger=ties would change the recipe" in refused(
        "add=runs/full", "to=pair", "merger=ties"
    )
    assert "is given twice" in refused("add=runs/lora", "to=pair")
    assert "pair already holds a run" in refused("add=runs/full", "to=pair", "out=pair")
    told = record("pair")
    told["experts"][1]["sha256"] = "0" * 64
    shutil.copytree("pair", "changed", dirs_exist_ok=True)
    Path("changed", "merge.json").write_text(json.dumps(told))
    sealed(Run(Path("changed")))
    assert "runs/lora has changed since it was merged; merge anew" in refused(
        "add=runs/full", "to=changed"
    )


def test_a_merged_run_is_not_trained_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["merge", "experts=[runs/fmsd,runs/lora]", "out=done", "test=false"]) == 0
    assert main(["train", "resume=done"]) == 2
    assert "was merged, not trained" in capsys.readouterr().err
