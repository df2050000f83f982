"""Evaluation: score the test datasets with a run's weights."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from fmsd.data.loading.corruptions import LEVELS, Corruption
from fmsd.engine.datamodule import DataModule
from fmsd.engine.scoring import stress, tested
from fmsd.engine.stamp import stamps
from fmsd.engine.trainer import TrainerFactory, alone
from fmsd.engine.weights import built, folded
from fmsd.metrics.table import best_thresholds
from fmsd.models.detector import Detector
from fmsd.report.terminal import cost_line, print_auc_table, print_robustness_tables
from fmsd.runs.claim import claim_run
from fmsd.runs.folder import CORRUPTIONS, VALIDATION, Run, read_results
from fmsd.runs.provenance import provenance
from fmsd.tables import read_parquet
from fmsd.tracking import publish

log = logging.getLogger(__name__)

CARRIED = (
    *("overrides", "choices", "seed", "selection", "monitor", "monitored", "origin", "epoch"),
    *("trainable", "parameters", "seconds", "merged"),
)
"""What an evaluation's record repeats of its run's."""


def evaluate(
    run: Run,
    detector: Callable[[], Detector],
    data: DataModule,
    trainer: TrainerFactory,
    folder: Path,
    config: str,
    command: Sequence[str],
    corruptions: Sequence[Corruption] = (),
    logger: Mapping[str, publish.LoggerFactory] | None = None,
) -> Run:
    """Tests a run's weights on the test datasets of `data` and writes results and predictions to `folder`.

    Args:
        detector: makes the detector that the run began with.
        corruptions: under each of them everything is tested once more.
        logger: factories of the loggers of the run's training, by name; they get what it found that
            the run had not.

    Raises:
        InputError: the run is not finished, or the data cannot be used.
    """
    trained = run.record()
    if (run.folder / "results.csv").is_file():
        run.results()  # whose names are those of files
    evaluation = Run(folder)
    with claim_run(evaluation, config, resumable=True):
        tests = data.tests
        for name, manifest in tests.items():
            before = trained["manifests"]["test"].get(name, {}).get("digest")
            if before is not None and before != manifest.digest():
                log.warning(
                    "%s is not what the run was tested on: other frames, splits or labels (see "
                    "manifests in run.json).",
                    name,
                )
        record = {key: trained[key] for key in CARRIED if key in trained} | {
            "stamps": stamps(data, run.origin())
        }
        validation = run.folder / VALIDATION
        record["thresholds"] = (
            best_thresholds(read_parquet(validation), data.video_score)
            if validation.is_file()
            else None
        )
        worker = alone(trainer, folder)
        table = stress(
            evaluation,
            record,
            worker,
            folded(run, partial(built, detector, worker.strategy.root_device, worker.precision)),
            data,
            corruptions,
        )
        if corruptions:
            record["corruptions"] = {name: LEVELS[name] for name, _ in corruptions}
        evaluation.write_record(
            record
            | provenance(command)
            | {
                "run": str(run.folder),
                "manifests": {"test": tested(tests)},
                "skipped": data.skipped,
            }
        )
        publish.publish_evaluation(logger or {}, run, evaluation)
    print_auc_table(table, f"AUC of {run.folder}", cost_line(record))
    if corruptions:
        print_robustness_tables(read_results(folder / CORRUPTIONS))
    print(f"The evaluation lies in {folder}")
    return evaluation
