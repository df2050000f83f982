"""The parts of the training task that the stories do not reach."""

import contextlib
import functools
import os
import threading
import time
from pathlib import Path

import polars as pl
import pytest
from lightning.pytorch import Trainer
from timm.layers.config import set_fused_attn, use_fused_attn

from fmsd.cli.main import main
from fmsd.engine.detectors import build_detector
from fmsd.engine.trainer import (
    build_trainer,
    check_first_validation,
    check_precision,
    steps_per_epoch,
    total_steps,
)
from fmsd.errors import InputError
from fmsd.runs.claim import claim_run
from fmsd.runs.folder import Run, remove_empty_folders
from tests.conftest import grow_tree, tiny_vit

trainer = functools.partial(
    Trainer, accelerator="cpu", logger=False, enable_checkpointing=False, max_epochs=3
)


@pytest.mark.parametrize(
    ("changes", "accumulate", "steps"),
    [
        ({}, 1, 30),
        ({}, 4, 9),
        ({"limit_train_batches": 4}, 1, 12),
        ({"limit_train_batches": 0.5}, 2, 9),
        ({"max_steps": 7}, 1, 7),
        ({"max_steps": 700}, 1, 30),
        ({"max_steps": 7, "max_epochs": -1}, 1, 7),
    ],
)
def test_the_schedule_spans_the_steps_that_will_be_made(
    changes: dict[str, object], accumulate: int, steps: int
) -> None:
    worker = trainer(**changes)
    assert total_steps(worker, steps_per_epoch(worker, 10, accumulate)) == steps


@pytest.mark.parametrize(
    ("changes", "accumulate", "remedy"),
    [
        ({"max_steps": 9}, 1, "raise trainer.max_steps to at least 10"),
        ({"max_steps": 4}, 2, "raise trainer.max_steps to at least 5"),
        ({"max_steps": 1, "limit_train_batches": 2}, 1, "raise trainer.max_steps to at least 2"),
        ({"check_val_every_n_epoch": 4}, 1, "raise trainer.max_epochs to at least 4"),
        ({"max_steps": 10}, 1, None),
        ({"max_steps": 5}, 2, None),
        ({"check_val_every_n_epoch": 3}, 1, None),
    ],
)
def test_a_training_that_ends_before_its_first_validation_is_refused(
    changes: dict[str, object], accumulate: int, remedy: str | None
) -> None:
    worker = trainer(**changes)
    per_epoch = steps_per_epoch(worker, 10, accumulate)
    with pytest.raises(InputError, match=remedy) if remedy else contextlib.nullcontext():
        check_first_validation(worker, total_steps(worker, per_epoch), per_epoch)


def test_training_without_an_end_is_refused() -> None:
    with pytest.raises(InputError, match=r"set trainer\.max_epochs or trainer\.max_steps"):
        total_steps(trainer(max_epochs=-1), 10)


def test_trainers_that_would_give_wrong_numbers_or_none_are_refused() -> None:
    assert build_trainer(trainer, precision="bf16-mixed").precision == "bf16-mixed"
    for precision in ("16-true", "bf16-true"):
        with pytest.raises(InputError, match=rf"trainer\.precision={precision} .* use bf16-mixed"):
            build_trainer(trainer, precision=precision)
    with pytest.raises(InputError, match=r"Training in 2 processes needs trainer=ddp"):
        build_trainer(trainer, devices=2)
    with pytest.raises(
        InputError, match=r"trainer\.precision=16-mixed would scale the gradients .* use bf16-mixed"
    ):
        check_precision("16-mixed")  # which the CPU does not have
    for wrong in ({"precision": "foo"}, {"accelerator": "abacus"}, {"max_epoch": 3}):
        with pytest.raises(
            InputError,
            match=r"The trainer does not take its settings .* correct trainer\.NAME=VALUE",
        ):
            build_trainer(trainer, **wrong)


def test_a_refused_run_takes_back_its_own_parts_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def refused(folder: Path) -> None:
        with claim_run(Run(folder), "a: 1"):
            (folder / "predictions").mkdir()
            raise InputError("no.")

    run = tmp_path / "runs" / "probe" / "now"
    with pytest.raises(InputError, match="no"):
        refused(run)
    remove_empty_folders(run)
    assert list(tmp_path.iterdir()) == []
    mixed = tmp_path / "mine"
    (mixed / "logs").mkdir(parents=True)
    (mixed / "thesis.tex").write_text("years")
    with pytest.raises(InputError, match="no"):
        refused(mixed)
    remove_empty_folders(mixed)
    assert {path.name for path in mixed.iterdir()} == {"logs", "thesis.tex"}


def test_a_second_process_in_the_same_folder_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    with claim_run(Run(tmp_path), "a: 1"):
        (tmp_path / "logs").mkdir()
        with (
            pytest.raises(
                InputError, match=r"Another process is at work on the run in .*; wait for it"
            ),
            claim_run(Run(tmp_path), "b: 2"),
        ):
            pass
        assert (tmp_path / "config.yaml").read_text() == "a: 1"
        assert (tmp_path / "logs").is_dir()


def test_a_run_goes_on_only_as_it_was_configured_and_until_it_is_finished(tmp_path: Path) -> None:
    config = "data: {size: 32, root: /a}\nseed: 1\noverrides: [seed=1]\n"
    with claim_run(Run(tmp_path), config, resumable=True):
        (tmp_path / ".mask.json.0123.partial").write_text("half")
    with claim_run(Run(tmp_path), config.replace("[seed=1]", "[data=x, seed=1]"), resumable=True):
        assert not (tmp_path / ".mask.json.0123.partial").exists()
    assert (tmp_path / "config.yaml").read_text() == config
    with (
        pytest.raises(
            InputError,
            match=r"already holds a run, unfinished and different from this one in data\.size; "
            r"choose another",
        ),
        claim_run(Run(tmp_path), config.replace("32", "64"), resumable=True),
    ):
        pass
    for name in ("run.json", "results.csv"):
        (tmp_path / name).write_text("{}")
    with (
        pytest.raises(InputError, match=r"already holds a run; choose another folder"),
        claim_run(Run(tmp_path), config, resumable=True),
    ):
        pass


def test_a_run_with_a_checkpoint_is_kept(tmp_path: Path) -> None:
    def refused() -> None:
        with claim_run(Run(tmp_path), "a: 1"):
            (tmp_path / "checkpoints").mkdir()
            (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"hours of work")
            raise InputError("a test image is broken.")

    with pytest.raises(InputError):
        refused()
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()


@pytest.mark.skipif(os.name != "posix", reason="there are no such locks")
@pytest.mark.parametrize("fails", [True, False])
def test_who_waits_for_a_run_finds_it_as_it_is_then(fails: bool, tmp_path: Path) -> None:
    begun = threading.Event()

    def first() -> None:
        with contextlib.suppress(ValueError), claim_run(Run(tmp_path), "a: 1", resumable=True):
            begun.set()
            time.sleep(0.5)  # the other one waits by now
            Run(tmp_path).finish({"stamps": {}})  # a merge that there is nothing to test of
            if fails:
                raise ValueError

    worker = threading.Thread(target=first)
    worker.start()
    assert begun.wait(10)
    if fails:
        with claim_run(Run(tmp_path), "b: 2", resumable=True):
            assert Run(tmp_path).config.read_text() == "b: 2"
    else:
        with (
            pytest.raises(InputError, match="has just finished the run in"),
            claim_run(Run(tmp_path), "a: 1", resumable=True),
        ):
            pass
        assert {path.name for path in tmp_path.iterdir()} == {"config.yaml", "run.json"}
    worker.join()


@pytest.mark.slow
def test_in_bfloat16_too_an_evaluation_gives_the_numbers_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow_tree(tmp_path / "data", domains=("real", "swap", "blend"), videos=6)
    monkeypatch.chdir(tmp_path)
    words = [
        "data=folder",
        "data.root=data",
        "trainer=smoke",
        "trainer.precision=bf16-mixed",
        "backbone=demo_vit",
    ]
    for name, seed in (("one", 0), ("other", 1)):
        assert main(["train", "method=full", f"seed={seed}", *words, f"hydra.run.dir={name}"]) == 0
    assert main(["merge", "merger=average", "experts=[one,other]", "out=merged"]) == 0
    for name in ("one", "merged"):
        assert main(["evaluate", f"run={name}", f"hydra.run.dir={name}/again"]) == 0
        first, again = (
            pl.read_parquet(f"{folder}/predictions/folder.parquet")
            for folder in (name, f"{name}/again")
        )
        assert first["logit"].to_list() == again["logit"].to_list()


@pytest.mark.parametrize(("precision", "fused"), [("bf16-mixed", False), ("32-true", True)])
def test_attention_is_torchs_own_unless_that_is_slow_where_it_trains_and_others_are_as_they_were(
    precision: str, fused: bool
) -> None:
    worker = trainer(precision=precision)
    for experimental in (False, True):
        set_fused_attn(True, experimental)
        assert {
            block.attn.fused_attn
            for block in build_detector(
                tiny_vit, worker.strategy.root_device, worker.precision
            ).backbone.blocks
        } == {fused}  # pyright: ignore
        assert (use_fused_attn(), use_fused_attn(experimental=True)) == (True, experimental)
    set_fused_attn(True)
