"""The search for a merge's coefficients."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch

from fmsd.cli.main import main
from tests.specialists import RUNS, record, weights

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def place(specialists: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the specialists, as the working directory."""
    monkeypatch.chdir(specialists)
    return specialists


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
                "overlap=allow",
                "hydra.run.dir=random/tested",
            ]
        )
        == 0
    )
    tested = pl.read_csv("random/tested/results.csv")
    assert tested.filter(level="video", metric="auc")["value"].item() == pytest.approx(value)
    assert tested["overlap"].unique().to_list() == tested["n_frames"].unique().to_list()
