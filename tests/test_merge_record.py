"""The record of a merge: layers, ranks, cosines, and the table of forgeries."""

import json
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from fmsd.cli.main import main
from fmsd.merge.record import log_truncations
from fmsd.models.detector import weights_path
from fmsd.state import read_state
from tests.conftest import grow_tree
from tests.specialists import BASE, METHODS, RUNS, fold_specialists, record, weights

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def place(specialists: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the specialists, as the working directory."""
    monkeypatch.chdir(specialists)
    return specialists


@pytest.fixture
def folded(place: Path) -> dict[str, dict[str, torch.Tensor]]:
    return fold_specialists(place)


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
    grow_tree(place / "other", domains=("real", "morph"), seed=1000)
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
