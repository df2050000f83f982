"""The choice of the weights: the test datasets have no part in it unless they are asked to."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from torch.utils.data import DataLoader

from fmsd.cli.main import main
from fmsd.engine.datamodule import DataModule
from fmsd.engine.model_selection import SELECTIONS
from fmsd.errors import InputError
from fmsd.metrics.table import compute_results
from fmsd.metrics.threshold import best_thresholds
from fmsd.runs.folder import VALIDATION, Run
from tests.conftest import grow_tree, write_image
from tests.test_engine import module

DOMAINS = ("real", "swap", "blend")


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two copies of a dataset that differ in every test image."""
    folder = tmp_path_factory.mktemp("selection")
    one = grow_tree(folder / "one", domains=DOMAINS, videos=4)
    two = shutil.copytree(one, folder / "two")
    for number, path in enumerate(sorted(two.glob("test/**/*.png"))):
        write_image(path, 1000 + number)
    return one, two


def trained(tree: Path, folder: Path, *words: str) -> Run:
    """A run of three short epochs."""
    data = [
        "data=folder",
        f"data.root={tree}",
        "trainer=smoke",
        "trainer.max_epochs=3",
        "data.videos=null",
        "backbone=demo_vit",
        "optimizer.lr=0.1",
    ]
    assert main(["train", "method=probe", *data, f"hydra.run.dir={folder}", *words]) == 0
    return Run(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [["select=iid"], ["select=last"], ["select=leave_one_domain_out", "data.left_out=blend"]],
    ids=["iid", "last", "leave_one_domain_out"],
)
def test_no_test_loader_is_touched_before_the_choice_and_no_test_image_moves_it(
    words: list[str], trees: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, loaded = [], []
    original = DataModule.test_loader

    def watched(data: DataModule, *arguments: Any, **settings: Any) -> DataLoader:
        loaded.append((runs[-1] / "adapter.safetensors").exists())
        return original(data, *arguments, **settings)

    monkeypatch.setattr(DataModule, "test_loader", watched)
    for name, tree in zip(("one", "two"), trees, strict=True):
        runs.append(tmp_path / name)
        trained(tree, runs[-1], *words)
    assert loaded == [True, True]
    one, two = (Run(run) for run in runs)
    assert (one.folder / "adapter.safetensors").read_bytes() == (
        two.folder / "adapter.safetensors"
    ).read_bytes()
    assert not one.results()["value"].equals(two.results()["value"])
    first, second = one.record(), two.record()
    assert {key: first[key] for key in ("epoch", "monitored", "thresholds")} == {
        key: second[key] for key in ("epoch", "monitored", "thresholds")
    }
    assert set(one.results()["selection"]) == {words[0].removeprefix("select=")}


def test_the_last_epoch_is_what_training_ended_with(
    trees: tuple[Path, Path], tmp_path: Path
) -> None:
    run = trained(trees[0], tmp_path / "run", "select=last")
    record = run.record()
    assert (record["epoch"], record["steps"], record["monitor"]) == (2, 6, None)
    last = torch.load(run.folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    saved = load_file(run.folder / "adapter.safetensors")
    assert saved.keys() == last.keys()
    assert all(torch.equal(saved[name], last[name]) for name in saved)
    assert not (run.folder / "checkpoints" / "best.ckpt").exists()
    losses = pl.read_csv(run.folder / "logs" / "metrics.csv")["val/loss"].drop_nulls()
    scored = pl.read_parquet(run.folder / VALIDATION)
    loss = functional.binary_cross_entropy_with_logits(
        scored["logit"].to_torch().double(), scored["label"].to_torch().double()
    )
    assert len(losses) == 3
    assert losses[-1] == pytest.approx(loss.item(), rel=1e-5)


def test_the_oracle_chooses_by_the_mean_over_the_test_datasets_and_says_so(
    trees: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = trained(trees[0], tmp_path / "run", "select=oracle")
    assert "the test datasets choose the weights" in caplog.text
    aucs = run.results().filter(level="video", metric="auc")
    assert run.record()["monitored"] == pytest.approx(aucs["value"].mean(), abs=1e-6)
    curves = pl.read_csv(run.folder / "logs" / "metrics.csv")["oracle/video_auc"].drop_nulls()
    assert len(curves) == 3
    assert run.record()["monitored"] == pytest.approx(curves.max(), abs=1e-6)
    assert set(aucs["selection"]) == {"oracle"}
    assert {facts["selection"] for facts in run.record()["stamps"].values()} == {"oracle"}


def test_a_forgery_that_is_left_out_chooses_and_is_not_trained_on(trees: tuple[Path, Path]) -> None:
    data = module(trees[0], left_out="blend")
    domains = {
        split: set(data.splits.both.where(split=split).table["domain"])
        for split in ("train", "val")
    }
    assert domains == {"train": {"real", "swap"}, "val": {"real", "blend"}}
    assert set(data.tests["mine"].table["domain"]) == set(DOMAINS)
    whole = module(trees[0])
    for split in ("train", "val"):
        kept = whole.splits.both.where(split=split).table.filter(
            pl.col("domain").is_in(domains[split])
        )
        assert kept.equals(data.splits.both.where(split=split).table)


def test_a_specialist_is_trained_on_one_forgery_and_tested_on_all(trees: tuple[Path, Path]) -> None:
    data = module(trees[0], train_forgeries=["blend"])
    for split in ("train", "val"):
        assert set(data.splits.both.where(split=split).table["domain"]) == {"real", "blend"}
    assert set(data.tests["mine"].table["domain"]) == set(DOMAINS)
    with pytest.raises(
        InputError,
        match=r"data\.train_forgeries names warp, but the training data holds blend, swap",
    ):
        module(trees[0], train_forgeries=["warp"])


def check_refused(
    words: list[str], sentence: str, root: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Asserts that a training with these overrides ends with the sentence and leaves no run."""
    data = ["data=folder", f"data.root={root}", "trainer=smoke", "backbone=demo_vit"]
    assert main(["train", "method=probe", *data, f"hydra.run.dir={run}", *words]) == 2
    assert sentence in capsys.readouterr().err
    assert not run.exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["select=best"],
            "select=best is unknown; choose one of iid, leave_one_domain_out, last, oracle",
        ),
        (["select=leave_one_domain_out"], "data.left_out=FORGERY belong together"),
        (["data.left_out=blend"], "data.left_out=FORGERY belong together"),
        (
            ["select=leave_one_domain_out", "data.left_out=real"],
            "the training data, which holds blend, swap; name one of several",
        ),
    ],
)
def test_rules_that_lack_something_are_refused(
    words: list[str],
    sentence: str,
    trees: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    check_refused(words, sentence, trees[0], tmp_path / "run", capsys)


def test_the_only_forgery_cannot_be_left_out(tree: Path) -> None:
    with pytest.raises(InputError, match="which holds swap; name one of several"):
        module(tree, left_out="swap")


def test_every_rule_has_its_name_in_the_configuration() -> None:
    text = Path(__file__).parents[1].joinpath("conf", "train.yaml").read_text()
    assert all(name in text for name in SELECTIONS)


def test_the_validation_predictions_lie_beside_the_tests_and_give_the_threshold(
    trees: tuple[Path, Path], tmp_path: Path
) -> None:
    run = trained(trees[0], tmp_path / "run", "data.video_score=max")
    validation, record = pl.read_parquet(run.folder / "validation.parquet"), run.record()
    assert set(validation["split"]) == {"val"}
    table = compute_results(validation, "iid", video_score="max", thresholds=record["thresholds"])
    assert table.filter(level="video", metric="auc")["value"].item() == pytest.approx(
        record["monitored"], abs=1e-6
    )
    for level in ("frame", "video"):
        best, plain = (
            table.filter(level=level, metric=metric)["value"].item()
            for metric in ("bacc_val", "bacc")
        )
        assert best >= plain
    tested = pl.read_parquet(run.folder / "predictions" / "folder.parquet")
    again = compute_results(tested, "iid", video_score="max", thresholds=record["thresholds"])
    assert run.results().drop("stamp", "pixels", "overlap").equals(again) or run.results()[
        "value"
    ].to_list() == pytest.approx(again["value"].to_list(), abs=1e-12)
    assert json.loads((run.folder / "run.json").read_text())["origin"]["selection"] == "iid"


@pytest.mark.slow
def test_an_evaluation_by_another_video_score_takes_the_threshold_that_belongs_to_it(
    trees: tuple[Path, Path], tmp_path: Path
) -> None:
    run = trained(trees[0], tmp_path / "run")
    assert (
        main(
            [
                "evaluate",
                f"run={run.folder}",
                "protocol=fmsd",
                "data.video_score=max",
                f"hydra.run.dir={tmp_path / 'max'}",
            ]
        )
        == 0
    )
    own = best_thresholds(pl.read_parquet(run.folder / "validation.parquet"), "max")
    assert Run(tmp_path / "max").record()["thresholds"] == own != run.record()["thresholds"]
    tested = compute_results(
        pl.read_parquet(tmp_path / "max" / "predictions" / "folder.parquet"),
        "iid",
        video_score="max",
        thresholds=own,
    )
    found = Run(tmp_path / "max").results()
    assert found["value"].to_list() == pytest.approx(tested["value"].to_list(), abs=1e-12)
    (run.folder / "validation.parquet").unlink()
    assert main(["evaluate", f"run={run.folder}", f"hydra.run.dir={tmp_path / 'bare'}"]) == 0
    assert "acc_val" not in Run(tmp_path / "bare").results()["metric"]


@pytest.mark.slow
@pytest.mark.parametrize("patience", [1, 2])
def test_a_value_that_never_gets_better_ends_training_after_so_many_epochs(
    patience: int, trees: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "fmsd"):
        run = trained(
            trees[0],
            tmp_path / "run",
            "optimizer.lr=0.0",
            f"patience={patience}",
            "trainer.max_epochs=6",
        )
    record = run.record()
    assert (record["stopped"], record["finished"], record["epoch"]) == ("patience", True, 0)
    assert run.finished
    curves = pl.read_csv(run.folder / "logs" / "metrics.csv")
    assert len(curves["val/video_auc"].drop_nulls()) == 1 + patience
    assert (
        f"No better val/video_auc in {patience} epochs: training ends after epoch {1 + patience}."
        in caplog.text
    )
    assert [" left" in line for line in caplog.messages if line.startswith("Epoch ")] == [
        True
    ] * patience + [False]


def test_a_training_that_reaches_its_end_was_not_stopped(
    trees: tuple[Path, Path], tmp_path: Path
) -> None:
    assert (
        trained(trees[0], tmp_path / "run", "optimizer.lr=0.0", "patience=2").record()["stopped"]
        is None
    )


def test_a_sweep_resumes_past_a_run_that_stopped_early(
    trees: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = [
        "data=folder",
        f"data.root={trees[0]}",
        "trainer=smoke",
        "trainer.max_epochs=4",
        "backbone=demo_vit",
        "method=probe",
        "optimizer.lr=0.0",
    ]
    sweep = ["train", "-m", *words, "patience=1", "seed=0", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    assert main(sweep) == 0
    (run,) = (path.parent for path in (tmp_path / "sweep").rglob("run.json"))
    before = (run / "run.json").read_bytes()
    with caplog.at_level("INFO", "fmsd"):
        assert main(sweep) == 0
    assert f"{run} is finished: skipped." in caplog.text
    assert (run / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["select=last", "patience=2"],
            "patience=2 waits for a better epoch, and with select=last none is better than "
            "another; leave one",
        ),
        (["patience=0"], "patience=0 is no number of epochs; give at least 1, or null"),
        (["patience=1.5"], "patience=1.5 is no number of epochs; give at least 1, or null"),
        (["patience=long"], "patience=long is no number of epochs; give at least 1, or null"),
        (
            ["patience=1", "wrapper=sagm", "wrapper.warmup_epochs=2", "trainer.max_epochs=4"],
            "could end within the 2 epochs of plain ERM",
        ),
    ],
)
def test_patience_without_a_sense_is_refused(
    words: list[str],
    sentence: str,
    trees: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    check_refused(words, sentence, trees[0], tmp_path / "run", capsys)


@pytest.mark.slow
def test_the_verbs_about_data_load_neither_lightning_nor_a_network() -> None:
    script = (
        "import sys, fmsd.tasks.doctor, fmsd.tasks.extract, fmsd.tasks.index, fmsd.tasks.pack\n"
        "print([name for name in ('lightning', 'timm', 'wandb') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_a_verb_about_data_has_no_setting_of_loaders(
    trees: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["doctor", "data=folder", f"data.root={trees[0]}", f"out={tmp_path / 'report.json'}"]
    assert main([*words, "data.batch_size=8"]) == 2
    assert "data.batch_size" in capsys.readouterr().err
    assert main(words) == 0
    assert main(["train", "--help", "data=folder"]) == 0
    assert "data.batch_size" in capsys.readouterr().out
    assert main(["doctor", "--help", "data=folder"]) == 0
    shown = capsys.readouterr().out
    assert "data.frames" in shown
    assert "data.batch_size" not in shown
