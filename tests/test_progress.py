"""What a training shows on its way: a line per epoch in a file or pipe, a bar on a terminal; both
count epochs from 1.
"""

import io
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import rich
from lightning.pytorch import Callback
from lightning.pytorch.strategies import SingleDeviceStrategy

from fmsd.cli.main import main
from fmsd.engine.model_selection import ValidationMetrics
from fmsd.engine.progress import EpochBar, EpochLines, format_duration
from tests.conftest import grow_tree
from tests.test_engine import learner, module, trainer
from tests.test_resume import TINY

LINE = re.compile(
    r"Epoch (\d) of (\d): training loss ([\d.]+), "
    r"video AUC ([\d.]+) on the validation split, \d+ s(, \d+ s left)?\."
)


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, ...]]:
    """The number of the epoch, that of all, loss, AUC and the time left of every line."""
    found = [
        record.getMessage() for record in caplog.records if record.getMessage().startswith("Epoch ")
    ]
    matches = [LINE.fullmatch(line) for line in found]
    assert all(matches), found
    return [match.groups() for match in matches if match]


def test_into_a_file_or_pipe_a_training_logs_a_line_per_epoch(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    grow_tree(tmp_path / "data", videos=3)
    monkeypatch.chdir(tmp_path)
    with caplog.at_level("INFO", "fmsd"):
        assert main(["train", *TINY, "method=probe", "data.workers=0", "hydra.run.dir=run"]) == 0
    shown = lines(caplog)
    assert [(epoch, count) for epoch, count, *_ in shown] == [("1", "3"), ("2", "3"), ("3", "3")]
    assert [left is not None for *_, left in shown] == [True, True, False]
    curves = pl.read_csv("run/logs/metrics.csv")
    aucs = curves["val/video_auc"].drop_nulls().to_list()
    assert [float(auc) for *_, auc, _ in shown] == pytest.approx(aucs, abs=5e-4)
    losses = (
        curves.drop_nulls("train/loss")
        .group_by("epoch", maintain_order=True)
        .agg(pl.col("train/loss").mean())["train/loss"]
        .to_list()
    )
    assert [float(loss) for _, _, loss, *_ in shown] == pytest.approx(losses, abs=5e-5)
    order = [record.getMessage().split(" ")[0] for record in caplog.records]
    assert order.index("Method") < order.index("Epoch")
    assert "━" not in capsys.readouterr().out.split("AUC, probe")[0]


def fitted(folder: Path, tree: Path, shown: Callback, epochs: int = 2, **changes: Any) -> None:
    data = module(tree)
    worker = trainer(
        folder, max_epochs=epochs, callbacks=[shown, ValidationMetrics(data)], **changes
    )
    worker.fit(learner(**({"steps": 4 * epochs, "accumulate": 1})), datamodule=data)


def test_on_a_terminal_the_bar_counts_epochs_from_one(tree: Path, tmp_path: Path) -> None:
    terminal = io.StringIO()
    try:
        fitted(
            tmp_path,
            tree,
            EpochBar(console_kwargs={"file": terminal, "force_terminal": True, "width": 150}),
            enable_progress_bar=True,
        )
    finally:
        rich.reconfigure()
    assert {*re.findall(r"Epoch (\d+)\D", terminal.getvalue())} >= {"1", "2"}
    assert "Epoch 2 of" in terminal.getvalue()
    assert "Epoch 0 of" not in terminal.getvalue()


class Follower(SingleDeviceStrategy):
    """A process that is not the first of several."""

    @property
    def is_global_zero(self) -> bool:
        return False


@pytest.mark.parametrize(("strategy", "count"), [("auto", 1), (Follower("cpu"), 0)])
def test_the_first_process_alone_logs(
    strategy: Any, count: int, tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "fmsd"):
        fitted(tmp_path, tree, EpochLines(), epochs=1, strategy=strategy)
    assert len(lines(caplog)) == count


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.6, "60 s"),
        (119, "119 s"),
        (130, "2 min"),
        (7100, "118 min"),
        (9000, "2.5 h"),
        (360_000, "100.0 h"),
    ],
)
def test_a_duration_is_told_in_a_unit_that_suits_it(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
