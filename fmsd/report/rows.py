"""Rows of a report: trained runs, each with its later evaluations."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from fmsd.errors import InputError
from fmsd.metrics.coverage import cover, framed, policy
from fmsd.metrics.definitions import OURS
from fmsd.metrics.ranking import scale_metrics
from fmsd.report.external_rows import join_external
from fmsd.report.labels import RowName, row_names
from fmsd.report.stamped import (
    coverage_remarks,
    read_stamped_results,
    remarks,
    stamped_facts,
    warn_of_other_protocol,
)
from fmsd.report.trainings import (
    has_results,
    test_time,
    training_of,
    training_places,
    warn_of_unfinished,
    without_interrupted,
)
from fmsd.runs.configuration import settings_digest, training_settings
from fmsd.runs.folder import ERROR, Run
from fmsd.runs.integrity import has_other_weights
from fmsd.runs.listing import run_folders
from fmsd.runs.predictions import read_predictions

log = logging.getLogger(__name__)

ORACLE_RULE = "oracle"
"""The selection that looks at the test datasets; labels of its rows carry this word."""


@dataclass(frozen=True)
class Row:
    """A trained or merged run with its evaluations. Rows with the same label are seeds.

    Args:
        label: its name, see `fmsd.report.labels.row_names`.
        runs: the folders of its results: the run itself, then its evaluations, newest first.
        records: content of their `run.json`.
        results: their tidy results; the first folder with a dataset provides it.
        prediction_files: paths of the predictions by dataset.
        settings: digest of the training settings besides data and seed; None where the
            configuration is not kept.
        setting: the overrides that vary between the runs of a report, as they were written.
    """

    label: str
    seed: int | None
    runs: tuple[Run, ...]
    records: tuple[Mapping[str, Any], ...]
    results: pl.DataFrame
    prediction_files: Mapping[str, Path]
    settings: str | None = None
    setting: str = ""

    @property
    def record(self) -> Mapping[str, Any]:
        """Content of the `run.json` of the training."""
        return self.records[0]

    @property
    def training(self) -> Run:
        """The training; it may be gone where only evaluations are reported."""
        run = self.runs[0]
        return run if "run" not in self.record else Run(training_of(run, self.record))

    @property
    def video_score(self) -> str:
        """How the scores of frames are aggregated in the first test."""
        return self.scoring_rules(next(iter(self.prediction_files)))["video_score"]

    def facts(self) -> dict[str, Mapping[str, Any]]:
        """The facts of the protocol behind each stamp, with the `pixels` of the results in use."""
        facts = {
            stamp: facts for record in self.records for stamp, facts in record["stamps"].items()
        }
        return facts | {stamp: own for _, _, stamp, own in stamped_facts(self.results, facts)}

    def remarks(self, dataset: str) -> list[str]:
        """Phrases on the files of a dataset and on frames without a score.

        See `fmsd.report.stamped`.
        """
        results = self.results.filter(dataset=dataset)
        facts = self.facts()[self.stamps_of(dataset)[0]]
        return [
            *remarks(self.record_of(dataset), dataset),
            *coverage_remarks(results, policy(facts)),
        ]

    def measurable(self, metrics: Sequence[str]) -> list[str]:
        """Those of some metrics that the scores have: see `fmsd.metrics.score_scale`."""
        external = self.record.get("external")
        known = None if external is None else scale_metrics(external["scale"])
        return [metric for metric in metrics if known is None or metric in known]

    def levels_of(self, dataset: str) -> list[str]:
        """The levels of the results on a dataset; scores of whole videos have no frame level."""
        return self.results.filter(dataset=dataset)["level"].unique(maintain_order=True).to_list()

    def record_of(self, dataset: str) -> Mapping[str, Any]:
        """Content of the `run.json` of the run or evaluation that tested a dataset."""
        return self.test_of(dataset)[1]

    def folder_of(self, dataset: str) -> Path:
        """The folder of the run or evaluation that tested a dataset."""
        return self.prediction_files[dataset].parent.parent

    def stamps_of(self, dataset: str) -> list[str]:
        """The protocol stamps of the results on a dataset."""
        return self.results.filter(dataset=dataset)["stamp"].unique(maintain_order=True).to_list()

    def ranked_identity(self, dataset: str, level: str) -> tuple[str, str]:
        """What identifies the videos or frames that are ranked, and the rule that groups frames.

        The former is the digest of the dataset's frames; where the coverage leaves some out, or
        adds videos without a frame, also that of what is ranked.
        """
        facts = self.facts()[self.stamps_of(dataset)[0]]
        frames = facts["manifest"]
        if "coverage" in facts:
            expected = self.expected_frames(dataset)
            columns = ("video", "path") if level == "frame" else ("video",)
            key = pl.concat_str(columns, separator="\n")
            ranked, whole = (
                part.select(key.unique().sort()).to_series()
                for part in (cover(expected, policy(facts)), framed(expected))
            )
            if not ranked.equals(whole):
                frames += hashlib.sha256("\n".join(ranked).encode()).hexdigest()
        return frames, facts["naming"]

    def test_of(self, dataset: str) -> tuple[Run, Mapping[str, Any]]:
        """The run or evaluation that tested a dataset, and the content of its `run.json`."""
        folder = self.folder_of(dataset)
        tests = zip(self.runs, self.records, strict=True)
        return next((run, record) for run, record in tests if run.folder == folder)

    def scoring_rules(self, dataset: str) -> Mapping[str, Any]:
        """How frames become videos and video scores, and the thresholds from validation data.

        The keys are arguments of `fmsd.metrics.table.compute_results`.
        """
        facts = self.facts()[self.stamps_of(dataset)[0]]
        return {
            "naming": facts["naming"],
            "video_score": facts["video_score"],
            "thresholds": self.record_of(dataset).get("thresholds"),
            "definitions": facts.get("definitions", OURS),
        }

    def read_predictions(self, dataset: str) -> pl.DataFrame:
        """Reads the predictions on a dataset: a row per ranked frame, by its coverage.

        Raises:
            InputError: the predictions are gone, changed or damaged.
        """
        return self.ranked_frames(dataset, self.expected_frames(dataset))

    def ranked_frames(self, dataset: str, expected: pl.DataFrame) -> pl.DataFrame:
        """Those of the expected frames of a dataset that are ranked, by its coverage."""
        return cover(expected, policy(self.facts()[self.stamps_of(dataset)[0]]))

    def expected_frames(self, dataset: str) -> pl.DataFrame:
        """The predictions on a dataset, a row per expected frame.

        Raises:
            InputError: the predictions are gone, changed or damaged.
        """
        path = self.prediction_files[dataset]
        run, _ = self.test_of(dataset)
        run.check(f"predictions/{path.name}")
        return read_predictions(path)


def load_rows(folder: Path) -> list[Row]:
    """Loads the finished runs below a folder with their evaluations.

    Evaluations without a run are rows of their own if the folder holds nothing else.

    Raises:
        InputError: there is no finished run, one has no protocol stamps, two are the same run, or
            seeds of one label differ in their settings.
    """
    groups = _group_by_training(folder)
    names = row_names([records[0] for _, records in groups])
    first_runs: dict[tuple[str, int | None], Run] = {}
    first_settings: dict[str, tuple[Run, dict[str, Any]]] = {}
    rows = []
    for name, (runs, records) in zip(names, groups, strict=True):
        label = name.label
        seed = records[0]["seed"]
        digest = None
        settings = training_settings(runs[0], records[0])
        if settings is not None:
            _check_same_settings(
                *first_settings.setdefault(label, (runs[0], settings)), runs[0], settings
            )
            digest = settings_digest(settings)
        same = first_runs.setdefault((label, seed), runs[0])
        if same is not runs[0]:
            equal = f"label={label}" if name.given else "equal overrides"
            raise InputError(
                f"{same.folder} and {runs[0].folder} are the same run twice ({equal} and seed "
                f"{seed})",
                "keep one of them below runs=FOLDER"
                + (", or give them different labels" if name.given else ""),
            )
        rows.append(_build_row(name, seed, runs, records, digest))
    return rows


RunGroup = tuple[list[Run], list[dict[str, Any]]]
"""A run, or the run of an evaluation, with its evaluations; and the content of each `run.json`."""


def _group_by_training(folder: Path) -> list[RunGroup]:
    """The finished runs below a folder, each with its evaluations, the newest first."""
    places = run_folders(folder, "results.csv", "config.yaml", ERROR)
    tested = [Run(place) for place in places if has_results(place)]
    warn_of_unfinished(folder, places)
    records = {run: _read_record(run) for run in tested}
    tested = without_interrupted(tested, records)
    evaluations = sorted(
        (run for run in tested if "run" in records[run]),
        key=lambda run: test_time(run, records[run]),
        reverse=True,
    )
    groups = {
        runs[0].folder.resolve(): runs
        for runs in join_external([run for run in tested if "run" not in records[run]], records)
    }
    any_training, orphans, outdated = bool(groups), [], []
    for run in evaluations:
        candidates = training_places(run, records[run])
        training = next(
            (
                path
                for path in candidates
                if path in groups
                or (folder.resolve() in path.parents and (path / "run.json").is_file())
            ),
            None,
        )
        if training is not None and has_other_weights(
            training, Run(training).record(), records[run]
        ):
            outdated.append(run)
        elif training is None and any_training:
            orphans.append(run)
        else:
            groups.setdefault(training or candidates[0], []).append(run)
    if not groups:
        raise InputError(
            f"There is no finished run below {folder}", "give a folder of runs as runs=FOLDER"
        )
    if orphans:
        log.warning(
            "%d evaluations are left out, as the runs they test are not below %s, %s for one.",
            len(orphans),
            folder,
            orphans[0].folder,
        )
    if outdated:
        log.warning(
            "%d evaluations are left out, as they tested other weights than those that their runs "
            "have now, %s for one; test these runs again with fmsd evaluate.",
            len(outdated),
            outdated[0].folder,
        )
    return [(group, [records[run] for run in group]) for group in groups.values()]


def _check_same_settings(
    first: Run, first_settings: Mapping[str, Any], run: Run, settings: Mapping[str, Any]
) -> None:
    """Raises if runs with the same label differ in more than data and seed."""
    for key in {**first_settings, **settings}:
        if first_settings.get(key, ...) != settings.get(key, ...):
            raise InputError(
                f"{first.folder} and {run.folder} would be seeds of one row, but differ in {key} "
                f"({first_settings.get(key)} and {settings.get(key)})",
                f"report them from different folders, or train them with {key}=VALUE among the "
                "overrides",
            )


def _build_row(
    name: RowName,
    seed: int | None,
    runs: Sequence[Run],
    records: Sequence[Mapping[str, Any]],
    settings: str | None,
) -> Row:
    """Joins the results of a run and its evaluations, the first folder with a dataset first."""
    parts: list[pl.DataFrame] = []
    files: dict[str, Path] = {}
    used: dict[tuple[str, str], Mapping[str, Any]] = {}
    for run, record in zip(runs, records, strict=True):
        table = read_stamped_results(run, record)
        facts = {
            (dataset, level): own
            for dataset, level, _, own in stamped_facts(table, record["stamps"])
        }
        for dataset in sorted({dataset for dataset, _ in facts} & files.keys()):
            warn_of_other_protocol(run, dataset, facts, files[dataset].parent.parent, used)
        used = facts | used
        new = table.filter(~pl.col("dataset").is_in(list(files)))
        parts.append(new)
        files |= {
            name: run.folder / "predictions" / f"{name}.parquet"
            for name in new["dataset"].unique(maintain_order=True)
        }
    table = pl.concat(parts, how="diagonal")
    oracle = table["selection"].str.contains(ORACLE_RULE).any()
    label = f"{name.label} ({ORACLE_RULE})" if oracle else name.label
    return Row(label, seed, tuple(runs), tuple(records), table, files, settings, name.setting)


def _read_record(run: Run) -> dict[str, Any]:
    """Content of a run's `run.json` with everything that a row needs."""
    record = run.record()
    if missing := [key for key in ("overrides", "seed") if key not in record]:
        raise InputError(
            f"{run.folder / 'run.json'} lacks {missing[0]}",
            "put it back, or train the run anew",
        )
    run.check(run.config.name)
    return record
