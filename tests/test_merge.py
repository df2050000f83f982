"""`fmsd merge` as a user runs it: specialists of any method or file, recipes, repeated merges."""

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import yaml
from safetensors.torch import load_file

from fmsd.cli.main import main
from fmsd.engine.merging import domain_table
from fmsd.package_files import CONF
from fmsd.report.naming import choice_name
from fmsd.runs.folder import Run
from fmsd.tasks import merge as merging
from tests.specialists import METHODS, RUNS, fold_specialists, record, weights

pytestmark = pytest.mark.slow

MERGERS = sorted(path.stem for path in (CONF / "merger").glob("*.yaml"))


@pytest.fixture(autouse=True)
def place(specialists: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the specialists, as the working directory."""
    monkeypatch.chdir(specialists)
    return specialists


@pytest.fixture
def folded(place: Path) -> dict[str, dict[str, torch.Tensor]]:
    return fold_specialists(place)


@pytest.mark.parametrize("method", ["norm", "bitfit", "probe"])
def test_specialists_that_learned_no_matrix_or_the_head_alone(place: Path, method: str) -> None:
    words = [
        "data=folder",
        "data.root=data",
        "trainer=smoke",
        "backbone=demo_vit",
        "optimizer.lr=1e-2",
    ]
    for seed in (0, 1, 2):
        assert (
            main(
                [
                    "train",
                    f"method={method}",
                    f"seed={seed}",
                    *words,
                    f"hydra.run.dir=few/{method}{seed}",
                ]
            )
            == 0
        )
    for merger in ("average", "r2m", "tsv"):
        assert (
            main(
                [
                    "merge",
                    f"merger={merger}",
                    f"experts=[few/{method}0,few/{method}1]",
                    f"out=few/{method}_{merger}",
                ]
            )
            == 0
        )
    assert (
        main(
            [
                "merge",
                f"add=few/{method}2",
                f"to=few/{method}_r2m",
                f"out=few/{method}_more",
                "test=false",
            ]
        )
        == 0
    )
    one, other, mean = (
        weights(place / "few" / name) for name in (f"{method}0", f"{method}1", f"{method}_average")
    )
    assert all(
        torch.allclose(mean[name], (one[name] + other[name]) / 2, atol=1e-6) for name in mean
    )


def test_every_merger_makes_a_run_like_any_other(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["merge", "-m", f"merger={','.join(MERGERS)}", RUNS, "hydra.sweep.dir=sweep"]) == 0
    runs = sorted(path for path in (place / "sweep").iterdir() if path.is_dir())
    assert len(runs) == len(MERGERS) == 9
    for run in runs:
        assert {
            "config.yaml",
            "run.json",
            "merge.json",
            "results.csv",
            "adapter.safetensors",
            "domains.csv",
            "domains.png",
        } <= {path.name for path in run.iterdir()}
        assert main(["evaluate", f"run={run}", f"hydra.run.dir={run}/again"]) == 0
        assert (run / "again" / "results.csv").read_bytes() == (run / "results.csv").read_bytes()
    capsys.readouterr()
    assert main(["report", "runs=sweep"]) == 0
    said = capsys.readouterr().out
    assert all(f"{choice_name(merger)} of " in said for merger in MERGERS)


def test_a_merge_in_a_sweep_is_skipped_while_its_experts_are_what_they_were(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("fmsd", "lora"):
        shutil.copytree(place / "runs" / name, place / "copies" / name)
    words = [
        "merge",
        "-m",
        "merger=average,r2m",
        "experts=[copies/fmsd,copies/lora]",
        "hydra.sweep.dir=skipped",
    ]
    assert main(words) == 0
    before = {path: path.stat().st_mtime_ns for path in place.glob("skipped/*/*") if path.is_file()}
    assert main(words) == 0
    assert {
        path: path.stat().st_mtime_ns for path in place.glob("skipped/*/*") if path.is_file()
    } == before
    capsys.readouterr()
    shutil.copy(
        place / "runs" / "full" / "adapter.safetensors",
        place / "copies" / "lora" / "adapter.safetensors",
    )
    assert main(words) == 2
    assert "copies/lora has changed since it was merged into" in capsys.readouterr().err
    (place / "copies" / "fmsd" / "adapter.safetensors").unlink()
    assert main(words) == 2
    assert "copies/fmsd, merged into" in capsys.readouterr().err
    words = [
        "merge",
        "-m",
        "merger=average",
        "experts=[runs/fmsd,runs/lora]",
        "test=false",
        "hydra.sweep.dir=untested_sweep",
    ]
    assert (main(words), main(words)) == (0, 0)


def test_a_merge_that_was_killed_is_made_again_and_a_whole_one_is_not(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["merge", "merger=average", "experts=[runs/fmsd,runs/lora]", "out=broken"]
    assert main(words) == 0
    whole = (place / "broken" / "results.csv").read_bytes()
    for gone in (["results.csv"], ["results.csv", "run.json", "adapter.safetensors"]):
        for name in gone:
            (place / "broken" / name).unlink()
        assert main(words) == 0
        assert (place / "broken" / "results.csv").read_bytes() == whole
    untested = [*words[:3], "out=untested", "test=false"]
    assert main(untested) == 0
    for again in (words, untested, untested[:-1]):
        assert main(again) == 2
        assert "already holds a run; choose another folder with out=PATH" in capsys.readouterr().err
    assert not (place / "untested" / "results.csv").exists()


def test_results_are_the_last_thing_that_a_merge_writes(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def table(run: Run, *others: Any) -> pl.DataFrame:
        assert not run.finished
        return domain_table(run, *others)

    monkeypatch.setattr(merging, "domain_table", table)
    assert main(["merge", "experts=[runs/fmsd,runs/lora]", "out=ordered"]) == 0
    assert {"results.csv", "domains.csv", "domains.png"} <= {
        path.name for path in (place / "ordered").iterdir()
    }


def test_the_average_is_the_mean_of_the_folded_weights(
    place: Path, folded: dict[str, dict[str, torch.Tensor]]
) -> None:
    assert main(["merge", "merger=average", RUNS, "out=average", "test=false"]) == 0
    assert not (place / "average" / "results.csv").exists()
    found = weights(place / "average")
    for name, tensor in found.items():
        assert torch.allclose(
            tensor, torch.stack([folded[method][name] for method in METHODS]).mean(0), atol=1e-6
        ), name


def test_files_of_several_kinds_merge_as_the_runs_they_come_from(
    place: Path, folded: dict[str, dict[str, torch.Tensor]]
) -> None:
    torch.save({"state_dict": folded["lora"]}, "lora.pth")
    two = {
        f"module.backbone.{name}": tensor
        for name, tensor in folded["full"].items()
        if not name.startswith("head.")
    }
    for leaf in ("weight", "bias"):  # a softmax over real and fake with the same difference
        fake = folded["full"][f"head.{leaf}"]
        two[f"module.head.{leaf}"] = torch.cat([fake.flip(-1), fake.flip(-1) + fake])
    torch.save(two, "deepfakebench.pth")
    files = "experts=[fmsd.safetensors,lora.pth,deepfakebench.pth]"
    assert main(["merge", RUNS, "out=from_runs", "test=false"]) == 0
    assert main(["merge", files, "backbone=demo_vit", "out=from_files"]) == 0
    for out, backbone in (("from_runs", {}), ("from_files", {"backbone": "demo_vit"})):
        kept = json.loads((place / out / "run.json").read_text())["choices"]
        assert kept == {"merger": "r2m"} | backbone
    assert (
        main(
            [
                "evaluate",
                "run=from_files",
                "data=folder",
                "data.root=data",
                "trainer=smoke",
                "hydra.run.dir=evaluated",
            ]
        )
        == 0
    )
    one, other = weights(place / "from_runs"), weights(place / "from_files")
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)
    assert [expert["label"] for expert in record("from_files")["experts"]] == [
        "fmsd",
        "lora",
        "deepfakebench",
    ]


def test_one_more_specialist_gives_what_a_merge_from_scratch_gives(place: Path) -> None:
    assert (
        main(
            ["merge", "experts=[runs/fmsd,runs/lora]", "merger.ratio=0.2", "out=two", "test=false"]
        )
        == 0
    )
    assert main(["merge", "add=runs/full", "to=two", "out=more", "test=false"]) == 0
    assert main(["merge", RUNS, "merger.ratio=0.2", "out=scratch", "test=false"]) == 0
    one, other = weights(place / "more"), weights(place / "scratch")
    assert all(torch.allclose(one[name], other[name], atol=1e-7) for name in one)
    more, scratch = record("more"), record("scratch")
    assert more["merger"] == scratch["merger"]
    assert more["experts"] == scratch["experts"]
    kept = {layer["name"]: layer["gram"] for layer in record("two")["layers"]}
    for layer, twin in zip(more["layers"], scratch["layers"], strict=True):
        assert torch.allclose(torch.tensor(layer["gram"]), torch.tensor(twin["gram"]), rtol=1e-10)
        if layer["name"] in kept:
            assert [row[:2] for row in layer["gram"][:2]] == kept[layer["name"]]


def test_a_merge_named_merged_can_be_an_expert(place: Path) -> None:
    assert main(["merge", "experts=[runs/fmsd,runs/lora]", "out=merged"]) == 0
    assert main(["merge", "experts=[merged,runs/full]", "out=again"]) == 0
    assert pl.read_csv("again/domains.csv")["detector"].n_unique() == 3


def test_a_recipe_says_the_same_as_the_command_line(place: Path) -> None:
    recipe = {
        "defaults": [{"override /merger": "ties"}],
        "experts": [f"runs/{method}" for method in METHODS],
        "merger": {"density": 0.5},
        "out": "cooked",
        "test": False,
    }
    Path("recipes", "experiments").mkdir(parents=True)
    Path("recipes", "experiments", "mine.yaml").write_text(
        "# @package _global_\n" + yaml.safe_dump(recipe, sort_keys=False)
    )
    assert main(["merge", "--config-dir=recipes", "experiments=mine"]) == 0
    assert (
        main(["merge", "merger=ties", "merger.density=0.5", RUNS, "out=typed", "test=false"]) == 0
    )
    Path("recipes", "experiments", "files.yaml").write_text(
        "# @package _global_\ndefaults: [override /backbone: demo_vit]\nexperts: "
        "[fmsd.safetensors, lora.safetensors]\nout: baked\n"
    )
    for method in METHODS:
        if not Path(f"{method}.safetensors").exists():
            assert main(["fold", f"run=runs/{method}", f"out={method}.safetensors"]) == 0
    assert main(["merge", "--config-dir=recipes", "experiments=files"]) == 0
    assert (
        Path("cooked", "adapter.safetensors").read_bytes()
        == Path("typed", "adapter.safetensors").read_bytes()
    )


def test_specialists_of_parameter_efficient_methods_merge_into_a_small_adapter(place: Path) -> None:
    assert main(["merge", "experts=[runs/fmsd,runs/lora]", "out=small", "test=false"]) == 0
    names = set(load_file("small/adapter.safetensors"))
    assert names <= {
        f"blocks.{block}.attn.{layer}.{leaf}"
        for block in range(6)
        for layer in ("qkv", "proj")
        for leaf in ("weight", "bias")
    } | {
        "head.weight",
        "head.bias",
    }
