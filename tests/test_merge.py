"""`fmsd merge` as a user runs it: specialists of any method or file, recipes, one more specialist,
a search, and what is refused.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import yaml
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from fmsd.cli.files import CONF
from fmsd.cli.main import main
from fmsd.engine.merging import domain_table
from fmsd.merge.record import log_truncations
from fmsd.models.detector import detector, weights_path
from fmsd.runs.folder import Run
from fmsd.state import read_state
from fmsd.tasks import merge as merging
from tests.conftest import grow_tree

pytestmark = pytest.mark.slow

MERGERS = sorted(path.stem for path in (CONF / "merger").glob("*.yaml"))
METHODS = ("fmsd", "lora", "full")
BASE = "package:demo_vit.safetensors"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three specialists of one backbone in `runs/METHOD`, by three methods, and their data."""
    folder = tmp_path_factory.mktemp("merge")
    grow_tree(folder / "data", domains=("real", "swap", "blend"))
    for method in METHODS:
        data = ["data=folder", f"data.root={folder / 'data'}", "trainer=smoke", "backbone=demo_vit"]
        assert (
            main(
                [
                    "train",
                    f"method={method}",
                    "optimizer.lr=1e-2",
                    *data,
                    f"hydra.run.dir={folder / 'runs' / method}",
                ]
            )
            == 0
        )
    return folder


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


@pytest.fixture
def folded(place: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The specialists' plain weights."""
    for method in METHODS:
        if not (place / f"{method}.safetensors").exists():
            assert main(["fold", f"run=runs/{method}", f"out={method}.safetensors"]) == 0
    return {method: load_file(place / f"{method}.safetensors") for method in METHODS}


RUNS = "experts=[runs/fmsd,runs/lora,runs/full]"


def weights(run: Path) -> dict[str, torch.Tensor]:
    """The plain weights of a run."""
    assert main(["fold", f"run={run}", f"out={run / 'plain.safetensors'}"]) == 0
    return load_file(run / "plain.safetensors")


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
    assert all(f"merger={merger}" in said for merger in MERGERS)


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


def record(run: str) -> Any:
    return json.loads(Path(run, "merge.json").read_text())


def test_the_record_tells_the_recipe_and_what_was_done_to_each_layer(place: Path) -> None:
    assert main(["merge", "merger.alpha=0.4", RUNS, "out=told"]) == 0
    told = record("told")
    assert told["merger"]["name"] == "r2m"
    assert told["merger"]["alpha"] == 0.4
    assert [expert["path"] for expert in told["experts"]] == [
        str(place / "runs" / method) for method in METHODS
    ]
    assert all(len(expert["sha256"]) == 64 for expert in told["experts"])
    gram = torch.tensor(told["gram"])
    assert torch.equal(gram, gram.T)
    assert (gram.diagonal() > 0).all()
    by_name = {layer["name"]: layer for layer in told["layers"]}
    assert by_name["blocks.0.attn.proj.weight"]["rank"] == 16
    assert len(by_name["norm.bias"]["residuals"]) == 3
    assert "rank" not in by_name["norm.bias"]
    run = json.loads((place / "told" / "run.json").read_text())
    assert run["selection"] == "fixed"
    assert run["merged"] == list(METHODS)


def test_the_matrix_holds_every_specialist_and_the_merge_on_every_forgery(place: Path) -> None:
    assert main(["merge", "merger=task_arithmetic", RUNS, "out=matrix"]) == 0
    table = pl.read_csv(place / "matrix" / "domains.csv").filter(level="video")
    assert table.select("detector", "domain").rows() == [
        (name, domain) for name in (*METHODS, "merged") for domain in ("blend", "swap")
    ]
    for name, folder in (
        *((method, place / "runs" / method) for method in METHODS),
        ("merged", place / "matrix"),
    ):
        frames = pl.read_parquet(folder / "predictions" / "folder.parquet").filter(
            pl.col("domain").is_in(["real", "swap"])
        )
        score = (
            frames.with_columns(score=1 / (1 + (-pl.col("logit").cast(pl.Float64)).exp()))
            .group_by("video")
            .agg(pl.col("label").first(), pl.col("score").mean())
        )
        fake, real = (score.filter(label=label)["score"] for label in (1, 0))
        wins = sum((one > other) + 0.5 * (one == other) for one in fake for other in real) / (
            len(fake) * len(real)
        )
        assert table.filter(detector=name, domain="swap")["value"].item() == pytest.approx(wins)


def test_specialists_without_predictions_on_the_data_are_tested(
    place: Path, folded: dict[str, dict[str, torch.Tensor]]
) -> None:
    grow_tree(place / "other", domains=("real", "morph"))
    data = ["data=folder", "data.root=other", "trainer=smoke"]
    assert main(["merge", "experts=[runs/fmsd,lora.safetensors]", *data, "out=elsewhere"]) == 0
    table = pl.read_csv(place / "elsewhere" / "domains.csv").filter(level="frame")
    assert table["detector"].to_list() == ["fmsd", "lora", "merged"]
    assert main(["evaluate", "run=runs/lora", *data, "hydra.run.dir=lora_elsewhere"]) == 0
    expected = (
        pl.read_csv(place / "lora_elsewhere" / "results.csv")
        .filter(level="frame", metric="auc")["value"]
        .item()
    )
    assert table.filter(detector="lora")["value"].item() == pytest.approx(expected)


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


def test_a_search_chooses_on_validation_data_alone(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree("data", "unread")
    for image in Path("unread", "test").rglob("*.png"):
        image.write_bytes(b"nobody looks at this")
    words = ["data=folder", "data.root=unread", "trainer=smoke", "on=folder", "test=false"]
    assert main(["merge", RUNS, "search=alpha=0,0.5,2 ratio=0.1,1.0", *words, "out=searched"]) == 0
    found = record("searched")["search"]
    assert [(entry["alpha"], entry["ratio"]) for entry in found["tried"]] == [
        (a, r) for a in (0, 0.5, 2) for r in (0.1, 1.0)
    ]
    best = max(found["tried"], key=lambda entry: entry["value"])
    assert found["best"] == best["value"]
    assert found["on"] == ["folder"]
    chosen = record("searched")["merger"]
    assert (chosen["alpha"], chosen["ratio"]) == (best["alpha"], best["ratio"])
    assert (
        main(
            [
                "merge",
                RUNS,
                f"merger.alpha={best['alpha']}",
                f"merger.ratio={best['ratio']}",
                "test=false",
                "out=chosen",
            ]
        )
        == 0
    )
    one, other = weights(place / "searched"), weights(place / "chosen")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert json.loads(Path("searched", "run.json").read_text())["selection"] == "search"
    assert (
        main(
            [
                "merge",
                "experts=[runs/fmsd,runs/lora]",
                "search=alpha=0.7 ratio=0.3",
                *words,
                "out=searched_pair",
            ]
        )
        == 0
    )
    assert (
        main(["merge", "add=runs/full", "to=searched_pair", "out=searched_three", "test=false"])
        == 0
    )
    assert record("searched_three")["merger"] == record("searched_pair")["merger"]
    assert record("searched_three")["merger"]["alpha"] == 0.7
    assert record("searched_three")["search"]["by"] == "a merge without the last expert"
    assert json.loads(Path("searched_three", "run.json").read_text())["selection"] == "search"
    digest = json.loads(Path("searched_pair", "run.json").read_text())["manifests"]["validation"][
        "folder"
    ]["digest"]
    assert len(digest) == 64


def test_a_merge_named_merged_can_be_an_expert(place: Path) -> None:
    assert main(["merge", "experts=[runs/fmsd,runs/lora]", "out=merged"]) == 0
    assert main(["merge", "experts=[merged,runs/full]", "out=again"]) == 0
    assert pl.read_csv("again/domains.csv")["detector"].n_unique() == 3


def test_a_search_begins_with_the_base_of_a_backbone_without_pretrained_weights(
    place: Path,
) -> None:
    words = [
        "data=folder",
        "data.root=data",
        "trainer=smoke",
        "backbone=demo_vit",
        "backbone.weights=null",
        "optimizer.lr=1e-2",
    ]
    for method in ("norm", "bitfit"):
        assert main(["train", f"method={method}", *words, f"hydra.run.dir=random/{method}"]) == 0
    experts = "experts=[random/norm,random/bitfit]"
    assert (
        main(
            ["merge", experts, "search=alpha=0.5", "on=folder", "test=false", "out=random/searched"]
        )
        == 0
    )
    value = record("random/searched")["search"]["best"]
    shutil.copytree("data/val", "as_test/test")  # the same frames, tested
    assert (
        main(
            [
                "evaluate",
                "run=random/searched",
                "data=folder",
                "data.root=as_test",
                "hydra.run.dir=random/tested",
            ]
        )
        == 0
    )
    assert pl.read_csv("random/tested/results.csv").filter(level="video", metric="auc")[
        "value"
    ].item() == pytest.approx(value)


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


def test_the_cosine_between_two_seeds_is_reported_beside_those_of_the_experts(
    place: Path, folded: dict[str, dict[str, torch.Tensor]]
) -> None:
    words = [
        "method=lora",
        "optimizer.lr=1e-2",
        "data=folder",
        "data.root=data",
        "trainer=smoke",
        "backbone=demo_vit",
    ]
    assert main(["train", *words, "seed=1", "hydra.run.dir=seeds/lora1"]) == 0
    pair = "ceiling=[runs/lora,seeds/lora1]"
    assert main(["merge", "experts=[runs/fmsd,runs/lora]", pair, "out=below", "test=false"]) == 0
    base = read_state(weights_path(BASE))
    names = [layer["name"] for layer in record("below")["layers"]]
    first, second = (
        torch.cat([(one[name] - base[name]).flatten().double() for name in names])
        for one in (folded["lora"], weights(Path("seeds/lora1")))
    )
    ceiling = record("below")["ceiling"]
    assert ceiling["cosine"] == pytest.approx(
        float(first @ second / (first.norm() * second.norm())), abs=1e-4
    )
    assert [expert["label"] for expert in ceiling["experts"]] == ["lora", "lora1"]
    assert main(["merge", "add=runs/full", "to=below", "out=more_below", "test=false"]) == 0
    assert record("more_below")["ceiling"]["experts"] == ceiling["experts"]
    assert (
        main(
            [
                "merge",
                "experts=[fmsd.safetensors,lora.safetensors]",
                "backbone=demo_vit",
                pair,
                "out=files_below",
                "test=false",
            ]
        )
        == 0
    )
    assert record("files_below")["ceiling"]["experts"] == ceiling["experts"]


def test_a_core_that_one_specialist_makes_is_warned_of_once_and_recorded(
    place: Path, folded: dict[str, dict[str, torch.Tensor]], caplog: pytest.LogCaptureFixture
) -> None:
    base = read_state(weights_path(BASE))
    long = {
        name: tensor if name.startswith("head.") else 4 * tensor - 3 * base[name]
        for name, tensor in folded["lora"].items()
    }
    save_file(long, "long.safetensors")
    experts = "experts=[runs/fmsd,long.safetensors]"
    for merger in ("r2m", "r2m_script"):
        caplog.clear()
        assert main(["merge", f"merger={merger}", experts, f"out=long_{merger}", "test=false"]) == 0
        found = record(f"long_{merger}")
        assert max(found["core_shares"]) == found["core_shares"][1] > 0.6
        assert sum("long alone makes" in warning for warning in found["warnings"]) == 1
        assert [
            entry.message.split(";")[0]
            for entry in caplog.records
            if "alone makes" in entry.message
        ] == [warning.split(";")[0] for warning in found["warnings"] if "alone makes" in warning]
    caplog.clear()
    assert main(["merge", "merger.normalise=task", experts, "out=short", "test=false"]) == 0
    assert record("short")["core_shares"] == pytest.approx([0.5, 0.5])
    assert 0 <= record("short")["spectral_gap"] <= 1
    assert main(["merge", "merger=average", experts, "out=no_core", "test=false"]) == 0
    assert record("no_core")["warnings"]
    assert "alone makes" not in caplog.text


def test_matrices_that_were_decomposed_after_all_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    log_truncations({"a": {"of_best": [1.0, 1.0]}, "b": {}})
    assert not caplog.records
    log_truncations(
        {"a": {"of_best": [1.0, 1.0], "rejected": [0.7, 0.5]}, "b": {"of_best": [0.95]}, "c": {}}
    )
    assert "2 of 3 matrices were decomposed as a whole" in caplog.text
    assert "0.50 in a" in caplog.text


# ---- input that cannot be used


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
        assert f"broken holds NaN or infinite values in '{name}'" in refused(
            "experts=[runs/fmsd,broken.safetensors]", "test=false"
        )
    Path("taken").touch()
    assert "taken is a file, where a folder is wanted" in refused(
        "experts=[runs/fmsd,runs/lora]", "out=taken", "test=false"
    )


def test_coefficients_and_searches_that_make_no_sense(refused: Any) -> None:
    words = (RUNS, "test=false")
    assert "There is no merger=mean; choose one of average" in refused(*words, "merger=mean")
    assert "merger.alpha=-1 is out of range; give a number of at least 0" in refused(
        *words, "merger.alpha=-1"
    )
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
    assert "runs/lora has changed since it was merged; merge anew" in refused(
        "add=runs/full", "to=changed"
    )


def test_a_merged_run_is_not_trained_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["merge", "experts=[runs/fmsd,runs/lora]", "out=done", "test=false"]) == 0
    assert main(["train", "resume=done"]) == 2
    assert "was merged, not trained" in capsys.readouterr().err
