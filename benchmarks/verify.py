"""The digests that fmsd evaluate compares before it tests a run, as a share of the evaluation.

python benchmarks/verify.py [--rounds 3] [--backbone vit_small_patch16_224] [--json PATH]

A run with a small adapter and one whose adapter is the whole network are trained for two steps on
the embedded data, then evaluated on a few frames of it: the share is that of the same round, and a
test set of ten times as many frames has a tenth of it.
"""

import contextlib
import functools
import io
import statistics
import tempfile
import time
from pathlib import Path

import torch
from harness import Row, arguments, interleaved, ratio, report, row

from fmsd.cli.main import main
from fmsd.runs.folder import VALIDATION, Run
from fmsd.runs.integrity import DETECTOR_FILES

READ = (*DETECTOR_FILES, VALIDATION, "results.csv")
"""The files of a run that an evaluation reads."""


def quietly(*words: str) -> None:
    """Runs a command that succeeds."""
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(list(words)) == 0, words


def train(folder: Path, method: str, backbone: str) -> Run:
    """A run of two steps, with random initial weights."""
    quietly(
        "train",
        "data=synthetic",
        "trainer=smoke",
        "trainer.max_epochs=1",
        f"method={method}",
        "backbone=clip_vit_b16",
        f"backbone.name={backbone}",
        "backbone.pretrained=false",
        f"hydra.run.dir={folder}",
    )
    return Run(folder)


def evaluate(run: Run) -> None:
    """Tests a run on the frames of its training's tests."""
    quietly(
        "evaluate", f"run={run.folder}", f"hydra.run.dir={run.folder}/evaluations/{time.time_ns()}"
    )


def measure(folder: Path, rounds: int, backbone: str) -> list[Row]:
    """Medians over the rounds; shares are medians of those within a round."""
    torch.set_num_threads(1)
    rows = []
    for method in ("fmsd", "full"):
        run = train(folder / method, method, backbone)
        size = sum((run.folder / name).stat().st_size for name in READ) / 1e6
        frames = sum(test["frames"] for test in run.record()["manifests"]["test"].values())
        evaluation, digests = f"{method}: {frames} frames", f"{method}: digests of {size:.1f} MB"
        seconds = interleaved(
            {
                evaluation: functools.partial(evaluate, run),
                digests: functools.partial(run.check, *READ),
            },
            rounds,
        )
        share = ratio(seconds, digests, evaluation)
        goal = 0.01 if method == "fmsd" else None  # a whole network needs more than these frames
        rows += [
            row(evaluation, statistics.median(seconds[evaluation]), "s"),
            row(digests, statistics.median(seconds[digests]), "s"),
            row(f"{method}: digests / evaluation", share, "x", goal, evaluation),
            row(f"{method}: digests, as tested frames", share * frames, "frames"),
        ]
    return rows


if __name__ == "__main__":
    title = "Digests that an evaluation compares"
    parser = arguments(title)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backbone", default="vit_small_patch16_224")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        report(title, measure(Path(place), options.rounds, options.backbone), options.json)
