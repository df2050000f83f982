"""Statistics of video scores beside the metrics: of each test, and of pairs of tests."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import polars as pl

from fmsd.metrics.cross_auc import Classes, CrossAuc, cross_auc, mean_cross_auc
from fmsd.metrics.delong import Placements, mean_placements, placements
from fmsd.metrics.groups import split_groups
from fmsd.metrics.interval import enough_videos
from fmsd.metrics.ranking import Labels, Scores
from fmsd.metrics.recalibration import recalibration
from fmsd.metrics.score_meaning import ScoreMeaning
from fmsd.metrics.selective import risk_coverage
from fmsd.report.rows import Row

Test = tuple[str, str]
"""The label of a row, and a dataset."""


@dataclass(frozen=True)
class VideoStatistics:
    """Statistics of video scores.

    Args:
        forgeries: AUC of each forgery against all reals of its dataset, with DeLong's variance:
            columns run, seed, dataset, domain, auc, variance, reals, fakes.
        selective: columns run, seed, dataset, threshold, risk, aurc, excess.
        recalibrated: the fields of `fmsd.metrics.recalibration.Recalibration`, with run, seed and
            dataset; of the runs with a calibration.
        cross: by label, the AUCs of the pairs of its datasets; the mean over seeds.
        placements: by label and dataset, the mean over seeds; of the tests with enough videos.
    """

    forgeries: pl.DataFrame = field(default_factory=pl.DataFrame)
    selective: pl.DataFrame = field(default_factory=pl.DataFrame)
    recalibrated: pl.DataFrame = field(default_factory=pl.DataFrame)
    cross: Mapping[str, CrossAuc] = field(default_factory=dict)
    placements: Mapping[Test, Placements] = field(default_factory=dict)


class VideoCollector:
    """Collects statistics of video scores, one test after the other.

    Args:
        paired: whether differences of AUCs will be tested, for which placements are kept.
        whole: whether everything else is wanted, too.
    """

    def __init__(self, paired: bool, whole: bool) -> None:
        self.paired, self.whole = paired, whole
        self.forgeries: list[Mapping[str, Any]] = []
        self.selective: list[Mapping[str, Any]] = []
        self.recalibrated: list[Mapping[str, Any]] = []
        self.classes: dict[str, Classes] = {}
        self.crossed: dict[str, list[CrossAuc]] = {}
        self.placed: dict[Test, list[Placements]] = {}

    def add(
        self,
        row: Row,
        dataset: str,
        frames: pl.DataFrame,
        videos: tuple[Scores, Labels],
        rules: Mapping[str, Any],
        meaning: ScoreMeaning | None,
    ) -> None:
        """Adds a test.

        Args:
            frames: its scored frames, see `fmsd.metrics.table.scores_by_dataset`.
            videos: score and label of its videos, in the order of their names.
            rules: see `fmsd.report.rows.Row.scoring_rules`.
            meaning: what scores of videos mean by the validation data of the run, where known.
        """
        score, label = (values.numpy() for values in videos)
        real, fake = score[label == 0], score[label == 1]
        if self.paired and enough_videos(len(real), len(fake)):
            found = placements(real, fake)
            small = Placements(found.real.astype(np.float32), found.fake.astype(np.float32))
            self.placed.setdefault((row.label, dataset), []).append(small)
        if not self.whole:
            return
        self.classes[dataset] = real, fake
        test = {"run": row.label, "seed": row.seed, "dataset": dataset}
        for domain, group in split_groups(
            frames, "domain", rules["video_score"], rules["definitions"]
        ).items():
            if len(group.fake):
                found = placements(group.compared, group.fake)
                self.forgeries.append(
                    test
                    | {"domain": domain, "auc": found.auc, "variance": found.variance}
                    | {"reals": len(group.compared), "fakes": len(group.fake)}
                )
        if not row.measurable(["acc"]):  # numbers without a scale have no threshold
            return
        threshold = (rules["thresholds"] or {}).get("video")
        curve = risk_coverage(score, label, 0.5 if threshold is None else threshold)
        self.selective.append(
            test
            | {"threshold": threshold, "risk": float(curve.risk[-1])}
            | {"aurc": curve.area, "excess": curve.excess}
        )
        if meaning is not None and meaning.calibration is not None:
            self.recalibrated.append(test | asdict(recalibration(meaning.calibration, *videos)))

    def end_row(self, row: Row) -> None:
        """Compares the datasets of a row with each other, after its last test."""
        # each run maps scores without a scale to logits of its own
        comparable = len(row.runs) == 1 or row.measurable(["acc"])
        if len(self.classes) > 1 and comparable:
            self.crossed.setdefault(row.label, []).append(cross_auc(self.classes))
        self.classes = {}

    def result(self) -> VideoStatistics:
        """The statistics of all tests that were added."""
        schema = {"run": pl.String, "seed": pl.Int64}
        forgeries, selective, recalibrated = (
            pl.DataFrame(lines, schema_overrides=schema, infer_schema_length=None)
            for lines in (self.forgeries, self.selective, self.recalibrated)
        )
        return VideoStatistics(
            forgeries,
            selective,
            recalibrated,
            {label: mean_cross_auc(parts) for label, parts in self.crossed.items()},
            {test: mean_placements(parts) for test, parts in self.placed.items()},
        )
