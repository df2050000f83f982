"""Evaluation: score test datasets with a run's weights."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fmsd.console import print_place
from fmsd.data.loading.corruptions import STRENGTHS, Corruption
from fmsd.data.manifest import Manifest
from fmsd.data.overlap import REFUSE, Overlap, check_overlap, count_overlap
from fmsd.engine.datamodule import DataModule
from fmsd.engine.scoring import (
    check_expected,
    choose_thresholds,
    load_for_scoring,
    manifest_records,
    score_with_corruptions,
)
from fmsd.engine.stamp import protocol_stamps
from fmsd.engine.trainer import TrainerFactory
from fmsd.metrics.coverage import check_coverage
from fmsd.models.detector import Detector
from fmsd.redaction import redact_settings
from fmsd.report.terminal import (
    cost_line,
    print_auc_table,
    print_robustness_tables,
    print_verdicts,
)
from fmsd.runs.claim import claim_run
from fmsd.runs.earlier_tests import compare_with_first_tests, first_tests
from fmsd.runs.folder import CORRUPTIONS, TRAINING, VALIDATION, VERDICTS, Run, read_results
from fmsd.runs.integrity import DETECTOR_FILES, tested_weights
from fmsd.runs.provenance import provenance
from fmsd.runs.training_frames import training_frames
from fmsd.runs.verdicts import run_verdicts
from fmsd.tracking import publish

log = logging.getLogger(__name__)

CARRIED = (
    "overrides",
    "choices",
    "seed",
    "selection",
    "monitor",
    "monitored",
    "finished",
    "origin",
    "epoch",
    "trainable",
    "parameters",
    "seconds",
    "merged",
    "imported",
)
"""Record keys copied from the run."""

WITHOUT = {
    VALIDATION: "there are no metrics at the thresholds that validation data chose",
    TRAINING: "the test frames cannot be compared with the training frames",
}
"""Files of a run that an evaluation can do without, and what it then lacks."""


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
    overlap: str = REFUSE,
    coverage: str | None = None,
) -> Run:
    """Tests a run's weights on the test datasets; writes results and predictions.

    Args:
        detector: builds the detector that the run began with.
        data: its test datasets are scored.
        folder: of the evaluation.
        corruptions: every dataset is scored once more under each of them.
        logger: factories of the loggers of the run's training, by name; they get the results that
            they do not have yet.
        overlap: what happens to tests on training frames, see `fmsd.data.overlap`.
        coverage: what becomes of frames without a score, see `fmsd.metrics.coverage.cover`.

    Returns:
        The evaluation.

    Raises:
        InputError: the run is not finished, a file of it is not what its record says, a file of
            its detector is missing, or the data cannot be used or hold training frames.
    """
    check_overlap(overlap)
    check_coverage(coverage)
    trained = run.record()
    run.check(*DETECTOR_FILES, optional=WITHOUT)
    if (run.folder / "results.csv").is_file():
        run.results()  # checks its dataset names, which become names of files
    evaluation = Run(folder)
    with claim_run(evaluation, config, resumable=True):
        data.load("tests")
        check_expected(data, coverage)
        tests = data.tests
        warn_of_changes(tests, trained)
        first = first_tests(run, evaluation, tests)
        thresholds = choose_thresholds(run, data.selection.video_score)
        counts = count_overlap(tests, training_frames([run]), overlap)
        record = evaluation_record(run, data, thresholds, counts)
        model, single = load_for_scoring(run, detector, trainer, folder)
        table, record["stamps"] = score_with_corruptions(
            evaluation, record, single, model, data, corruptions, coverage
        )
        verdicts = run_verdicts(evaluation, run, record["stamps"])
        if verdicts is not None:
            evaluation.write(VERDICTS, verdicts.write_csv())
        if corruptions:
            record["corruptions"] = {name: STRENGTHS[name] for name, _ in corruptions}
        record |= provenance(command)
        record |= {
            "run": run.name,
            "weights": tested_weights(run.folder, trained),
            "manifests": {"test": manifest_records(tests)},
            "suite": data.selection.suite,
            "skipped": data.skipped,
            "pixels": compare_with_first_tests(first, evaluation),
        }
        evaluation.finish(record)
        publish.publish_evaluation(logger or {}, run, evaluation)
    print_auc_table(table, f"AUC of {run.name}", cost_line(record))
    print_verdicts(verdicts, run.name)
    if corruptions:
        print_robustness_tables(read_results(folder / CORRUPTIONS))
    print_place(f"The evaluation lies in {folder}", folder)
    return evaluation


def warn_of_changes(tests: Mapping[str, Manifest], trained: Mapping[str, Any]) -> None:
    """Warns of test datasets that differ from those that the run was tested on.

    Args:
        trained: the record of the run.
    """
    for name, manifest in tests.items():
        before = trained["manifests"]["test"].get(name, {})
        if before.get("digest") in (None, manifest.digest()):
            continue
        videos = sum((before.get("videos") or {}).values())
        then = f"{before.get('frames', 0):,} frames of {videos:,} videos"
        now = f"{len(manifest):,} frames of {manifest.videos:,} videos"
        log.warning(
            "%s is not what the run was tested on: %s then, and %s now. Their results are not "
            "comparable; test on the same frames, or give the dataset another name.",
            name,
            then,
            now if now != then else "as many now, but other ones or with other labels",
        )


def evaluation_record(
    run: Run, data: DataModule, thresholds: Mapping[str, float] | None, overlap: Overlap
) -> dict[str, Any]:
    """The record that scoring needs: keys of the run, stamps, thresholds, and training frames."""
    trained = run.record()
    return redact_settings({key: trained[key] for key in CARRIED if key in trained}) | {
        "stamps": protocol_stamps(data, run.origin(), overlap),
        "thresholds": thresholds,
        "overlap": dict(overlap),
    }
