"""Results of runs, computed again from their predictions; recorded ones only have to agree.

A report shows no value of a file of results. It reads the predictions of every test, checks that
their frames are those of the manifest in the protocol stamp, and computes all metrics again.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from fmsd.console import track
from fmsd.data.content import pixels_digest
from fmsd.data.frame import DIGEST_COLUMNS
from fmsd.data.manifest import Manifest
from fmsd.errors import InputError
from fmsd.metrics.coverage import framed, policy
from fmsd.metrics.definitions import OURS
from fmsd.metrics.equal_scores import has_equal_scores, warn_of_equal_scores
from fmsd.metrics.ranking import scale_metrics
from fmsd.metrics.table import COLUMNS, LEVELS, compute_results
from fmsd.metrics.threshold import best_thresholds
from fmsd.report.rows import Row
from fmsd.report.threads import in_threads
from fmsd.runs.folder import CORRUPTIONS, VALIDATION, Run
from fmsd.runs.predictions import read_predictions

log = logging.getLogger(__name__)

TOLERANCE = 1e-6
"""Largest difference of a recorded value; processors differ in the last digits of float64."""

FACTS = ("stamp", "pixels", "overlap")
"""Columns of results about the frames; older results lack the last two."""

REMEDY = (
    "put back the file that was changed, or remove the table and test the run again with fmsd "
    "evaluate"
)


class Evidence:
    """Computes the results of tests from their predictions.

    A manifest's digest is computed once; the frames of other tests are compared with its rows.
    """

    def __init__(self) -> None:
        self.manifests: dict[str, pl.DataFrame] = {}

    def read(self, path: Path, manifest: str) -> pl.DataFrame:
        """Reads predictions, and checks that their frames are those of a manifest.

        Videos without a frame are no part of the manifest.

        Args:
            manifest: its digest.

        Raises:
            InputError: the predictions cannot be used, or are of other frames.
        """
        predictions = read_predictions(path)
        frames = framed(predictions).select(DIGEST_COLUMNS)
        known = self.manifests.get(manifest)
        if known is None or not frames.equals(known):
            digest = Manifest(frames, path.parent).digest()
            if digest != manifest:
                raise InputError(
                    f"The {frames.height} frames in {path} are not those that the run was tested "
                    f"on: their manifest has the digest {digest[:12]}, and the stamp in run.json "
                    f"{manifest[:12]}",
                    "put the predictions back, or test the run again",
                )
            self.manifests[manifest] = frames
        return predictions

    def results(
        self,
        run: Run,
        record: Mapping[str, Any],
        recorded: pl.DataFrame,
        thresholds: Mapping[str, float] | None,
        files: tuple[str, str],
        metrics: Sequence[str] | None = None,
    ) -> tuple[pl.DataFrame, pl.Series]:
        """Computes the results of one test from its predictions.

        Args:
            record: content of its `run.json`.
            recorded: its recorded results on one dataset.
            thresholds: from validation data, by level.
            files: names of the file of predictions, and of the table with the recorded results.
            metrics: the metrics of the recorded results; None for all.

        Returns:
            The results, with the recorded columns that do not follow from predictions; and the
            logits.

        Raises:
            InputError: the predictions cannot be used, or do not give the recorded results.
        """
        dataset = recorded["dataset"][0]
        stamps = {
            facts["level"]: (stamp, facts)
            for stamp, facts in record["stamps"].items()
            if facts["dataset"] == dataset
        }
        levels = [level for level in LEVELS if level in stamps]
        tested = recorded["level"].unique(maintain_order=True)
        if missing := [level for level in tested if level not in stamps]:
            raise InputError(
                f"{run.folder / 'run.json'} has no stamp of {dataset} at {missing[0]} level",
                "test the run again",
            )
        _, facts = stamps[levels[0]]
        predictions, table = (run.folder / name for name in files)
        run.check(files[0])
        frames = self.read(predictions, facts["manifest"])
        if metrics is None and "external" in record:
            metrics = scale_metrics(record["external"]["scale"])
        computed = compute_results(
            frames,
            str(record.get("selection")),
            facts["protocol"],
            facts["naming"],
            facts["video_score"],
            thresholds,
            metrics,
            policy(facts),
            levels,
            facts.get("definitions", OURS),
        ).with_columns(
            stamp=pl.col("level").replace_strict({level: stamps[level][0] for level in levels}),
            pixels=pl.lit(pixels_digest(frames), pl.String),
            overlap=pl.lit(record.get("overlap", {}).get(dataset), pl.Int64),
        )
        if difference := first_difference(recorded, computed, predictions):
            raise InputError(f"{table} {difference}", REMEDY)
        keys = ["dataset", "level", "metric"]
        if others := [name for name in recorded.columns if name not in computed.columns]:
            known = recorded.select(*keys, *others)
            computed = computed.join(known, on=keys, how="left", maintain_order="left")
        return computed, frames["logit"]


def first_difference(
    recorded: pl.DataFrame, computed: pl.DataFrame, predictions: Path
) -> str | None:
    """Says how the recorded results of one dataset differ from the computed ones; None if not.

    Metrics that the recorded results lack altogether are those of a newer version.

    Args:
        predictions: the file that results were computed from.
    """
    names = [name for name in (*COLUMNS, *FACTS) if name in recorded.columns]
    level, metric = names.index("level"), names.index("metric")
    expected = {(row[level], row[metric]): row for row in computed.select(names).iter_rows()}
    for row in recorded.select(names).iter_rows():
        place = f"dataset {row[0]}, level {row[level]}, metric {row[metric]}"
        right = expected.pop((row[level], row[metric]), None)
        if right is None:
            return f"has a row ({place}) that {predictions} does not give, or has it twice"
        for name, one, other in zip(names, row, right, strict=True) if row != right else ():
            if not _agree(one, other):
                texts = distinct_texts(one, other)
                return f"has the {name} {texts[0]} ({place}), and {predictions} gives {texts[1]}"
    metrics = set(recorded["metric"])
    for row in expected.values():
        if row[metric] in metrics:
            place = f"dataset {row[0]}, level {row[level]}, metric {row[metric]}"
            return f"lacks a row ({place}) that {predictions} gives"
    return None


def _agree(recorded: Any, computed: Any) -> bool:
    """Whether a recorded entry of a table is the computed one."""
    if isinstance(computed, float) and isinstance(recorded, float):
        return abs(recorded - computed) <= TOLERANCE
    return recorded == computed


def distinct_texts(one: Any, other: Any) -> tuple[str, str]:
    """Two different values as texts; numbers with as many decimals as show the difference."""
    if not (isinstance(one, float) and isinstance(other, float)):
        return str(one), str(other)
    for digits in range(4, 17):
        texts = f"{one:.{digits}f}", f"{other:.{digits}f}"
        if texts[0] != texts[1]:
            return texts
    return repr(one), repr(other)


def recompute_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows with results computed from their predictions, without copies of a seed.

    Raises:
        InputError: predictions cannot be used, or recorded results or thresholds do not follow
            from them.
    """
    evidence, equal = Evidence(), list[str]()
    thresholds = [checked_thresholds(row) for row in rows]
    results = [list[pl.DataFrame]() for _ in rows]
    digests = [dict[str, str]() for _ in rows]
    tests = [
        (number, dataset) for number, row in enumerate(rows) for dataset in row.prediction_files
    ]

    def recompute(test: tuple[int, str]) -> tuple[pl.DataFrame, str | None]:
        """The results of a test, and a digest of its logits; None where all are equal."""
        number, dataset = test
        run, record = rows[number].test_of(dataset)
        table, logits = evidence.results(
            run,
            record,
            rows[number].results.filter(dataset=dataset),
            thresholds[number].get(run),
            (f"predictions/{dataset}.parquet", "results.csv"),
        )
        equal_scores = has_equal_scores(logits)
        return table, None if equal_scores else hashlib.sha256(
            logits.to_numpy().tobytes()
        ).hexdigest()

    computed = track(in_threads(recompute, tests), "Computing results", len(tests), "tests")
    for (number, dataset), (table, digest) in zip(tests, computed, strict=True):
        results[number].append(table)
        if digest is None:
            equal.append(f"{dataset} in {rows[number].folder_of(dataset)}")
        else:
            digests[number][dataset] = digest
    for row in rows:
        for run in row.runs:
            run.check("results.csv")  # rows that are left out follow from predictions, too
    warn_of_equal_scores(equal)
    copies = set(find_copies(rows, digests))
    return [
        replace(row, results=pl.concat(tables, how="diagonal"))
        for number, (row, tables) in enumerate(zip(rows, results, strict=True))
        if number not in copies
    ]


def checked_thresholds(row: Row) -> dict[Run, Mapping[str, float] | None]:
    """The thresholds of each folder of a row, by the validation predictions of the training.

    Raises:
        InputError: those in a `run.json` are others.
    """
    found: dict[Run, Mapping[str, float] | None] = {}
    for dataset in row.prediction_files:
        run, record = row.test_of(dataset)
        recorded = record.get("thresholds")
        if run in found:
            continue
        found[run] = recorded
        if recorded is None:
            continue
        check_thresholds(recorded, run)
        path = row.training.folder / VALIDATION
        if not path.is_file():
            log.warning(
                "The thresholds of %s cannot be checked, as %s is gone; acc_val and bacc_val rest "
                "on run.json.",
                run.folder,
                path,
            )
            continue
        computed = best_thresholds(
            read_predictions(path), row.scoring_rules(dataset)["video_score"]
        )
        for level, value in computed.items():
            if not _agree(recorded[level], value):
                one, other = distinct_texts(recorded[level], value)
                raise InputError(
                    f"{run.folder / 'run.json'} has the threshold {one} at {level} level, which is "
                    f"{other} by {path}",
                    "put back the file that was changed, or test the run again",
                )
        found[run] = computed
    return found


def check_thresholds(recorded: Any, run: Run) -> None:
    """Checks that thresholds are a number for each level.

    Raises:
        InputError: they are something else.
    """
    if not isinstance(recorded, dict) or not all(
        isinstance(recorded.get(level), float) for level in LEVELS
    ):
        raise InputError(
            f"{run.folder / 'run.json'} has the thresholds {recorded!r}, and not a number for each "
            f"of {', '.join(LEVELS)}",
            "put it back, or test the run again",
        )


def find_copies(rows: Sequence[Row], digests: Sequence[Mapping[str, str]]) -> Iterator[int]:
    """Yields the indices of rows that have the predictions of another seed, and warns of each.

    Args:
        digests: of each row's logits, by dataset.
    """
    first: dict[tuple[str, str, str], Row] = {}
    for number, row in enumerate(rows):
        places = [(row.label, *item) for item in digests[number].items()]
        original = next((first[place] for place in places if place in first), None)
        if original is None:
            first |= dict.fromkeys(places, row)
            continue
        log.warning(
            "%s is left out: its predictions are those of %s, so it is a copy and no other seed.",
            row.runs[0].folder,
            original.runs[0].folder,
        )
        yield number


def recomputed_robustness(
    evidence: Evidence, run: Run, record: Mapping[str, Any], table: pl.DataFrame
) -> pl.DataFrame:
    """The video AUCs of a table of corruptions, computed from its predictions.

    Raises:
        InputError: the predictions cannot be used, or do not give the recorded results.
    """
    parts = []
    keys = ["dataset", "corruption", "severity"]
    recorded = table.filter(metric="auc")
    for (dataset, corruption, severity), part in recorded.group_by(keys, maintain_order=True):
        folder = f"{corruption}_{severity}/" if severity else ""
        found, _ = evidence.results(
            run,
            record,
            part,
            None,
            (f"predictions/{folder}{dataset}.parquet", CORRUPTIONS),
            ["auc"],
        )
        parts.append(found.filter(level="video"))
    return pl.concat(parts)
