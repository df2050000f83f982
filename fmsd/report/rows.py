"""What the rows of a report are made of: trained runs, each with the evaluations that were made of it later."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from fmsd.errors import InputError, reason
from fmsd.runs.configuration import flatten
from fmsd.runs.folder import Run
from fmsd.settings import parse_settings
from fmsd.tables import read_parquet

log = logging.getLogger(__name__)

ORACLE = "oracle"
"""The selection that looks at the test datasets; its rows say so."""

TRAINING_KEYS = (
    "backbone.",
    "method.",
    "wrapper.",
    "optimizer.",
    "schedule.",
    "learner.",
    "merger.",
    "select",
    "patience",
    "data.batch",
    "trainer.max_",
    "trainer.precision",
)
"""What the keys of a configuration begin with in which the seeds of a row agree."""

PATH_KEYS = ("backbone.weights", "method.mask.file")
"""Keys among these that say where a file lies."""

ADDED: Mapping[str, Any] = {"backbone.cosine_head": False}
"""Keys among these that runs of older versions lack, and what those runs did."""

COLUMNS = ["path", "dataset", "domain", "video", "label", "logit"]
"""What is read of predictions."""


@dataclass(frozen=True)
class Row:
    """One run of a row, one seed.

    Args:
        label: of the row: what was varied besides the seed.
        runs: the folders that hold its numbers: its own first, then its evaluations, the newest
            first.
        records: what their `run.json` say.
        results: their numbers; a dataset's are those of the first folder that has it.
        places: where the predictions of each dataset lie.
        settings: a digest of what it learned with besides its data and seed; None where its
            configuration is not kept.
    """

    label: str
    seed: int | None
    runs: tuple[Run, ...]
    records: tuple[Mapping[str, Any], ...]
    results: pl.DataFrame
    places: Mapping[str, Path]
    settings: str | None = None

    @property
    def record(self) -> Mapping[str, Any]:
        """What `run.json` says about the training."""
        return self.records[0]

    def facts(self) -> dict[str, Mapping[str, Any]]:
        """What the numbers rest on, by stamp."""
        return {
            stamp: facts for record in self.records for stamp, facts in record["stamps"].items()
        }

    def home(self, dataset: str) -> Path:
        """The folder of the run or evaluation that a dataset's numbers lie in."""
        return self.places[dataset].parent.parent

    def videos(self, dataset: str) -> tuple[str, str]:
        """What the videos of a dataset's numbers follow from: the digest of its frames, and what is one video."""
        facts = self.facts()[self.stamps(dataset)[0]]
        return facts["manifest"], facts["naming"]

    def stamps(self, dataset: str) -> list[str]:
        """The stamps of a dataset's numbers."""
        return self.results.filter(dataset=dataset)["stamp"].unique(maintain_order=True).to_list()

    def rules(self, dataset: str) -> Mapping[str, Any]:
        """How frames become videos, as the metrics take it, and the thresholds from validation data."""
        facts = self.facts()[self.stamps(dataset)[0]]
        record = next(
            record
            for run, record in zip(self.runs, self.records, strict=True)
            if run.folder == self.home(dataset)
        )
        return {
            "naming": facts["naming"],
            "video_score": facts["video_score"],
            "thresholds": record.get("thresholds"),
        }

    def predictions(self, dataset: str) -> pl.DataFrame:
        """The scored frames of a dataset.

        Raises:
            InputError: they are gone, or not those that the numbers follow from.
        """
        path = self.places[dataset]
        if not path.is_file():
            raise InputError(
                f"{path} is gone, and with it what the numbers follow from",
                "put it back, or test the run again with fmsd evaluate",
            )
        try:
            frames = read_parquet(path, columns=COLUMNS)
        except pl.exceptions.PolarsError as error:
            raise InputError(
                f"{path} does not hold a run's predictions ({reason(error)})",
                "put them back, or test the run again",
            ) from error
        count = self.results.filter(dataset=dataset)["n_frames"][0]
        if (
            frames.height != count
            or set(frames["dataset"]) != {dataset}
            or not frames["logit"].is_finite().fill_null(value=False).all()
        ):
            raise InputError(
                f"{path} does not hold a finite logit of each of the {count} frames of {dataset}",
                "put them back, or test the run again",
            )
        return frames


def load_rows(runs: Path) -> list[Row]:
    """The finished runs below a folder with their evaluations; where there are evaluations only, these.

    Raises:
        InputError: there is none, one is of an older version, or the same one is there twice.
    """
    tested = [
        Run(path.parent)
        for path in sorted(runs.rglob("results.csv"))
        if (path.parent / "run.json").is_file()
    ]
    records = {run: _record(run) for run in tested}
    evaluations = sorted(
        (run for run in tested if "run" in records[run]),
        key=lambda run: _time(run, records[run]),
        reverse=True,
    )
    groups = {run.folder.resolve(): [run] for run in tested if "run" not in records[run]}
    trained, orphans = bool(groups), []
    for run in evaluations:
        homes = [Path(records[run]["run"]).resolve(), run.folder.parent.parent.resolve()]
        home = next(
            (
                home
                for home in homes
                if home in groups
                or (runs.resolve() in home.parents and (home / "run.json").is_file())
            ),
            None,
        )
        if home is None and trained:
            orphans.append(run)
        else:
            groups.setdefault(home or homes[0], []).append(run)
    if not groups:
        raise InputError(
            f"There is no finished run below {runs}", "give a folder of runs as runs=FOLDER"
        )
    if orphans:
        log.warning(
            "%d evaluations are left out, as the runs they test are not below %s, %s for one.",
            len(orphans),
            runs,
            orphans[0].folder,
        )
    return _labelled([(group, [records[run] for run in group]) for group in groups.values()])


def _labelled(groups: Sequence[tuple[list[Run], list[dict[str, Any]]]]) -> list[Row]:
    """Trials with what was varied in them besides the seed."""
    settings = [_settings(records[0]["overrides"]) for _, records in groups]
    kinds = ["merged" in records[0] for _, records in groups]
    names = _varied(settings, kinds)
    trained, merged = (
        {name for name, other in zip(names, kinds, strict=True) if name and other == kind}
        for kind in (False, True)
    )
    if trained & merged:
        names = _varied(settings, [False] * len(kinds))
    twins: dict[tuple[str, int | None], Run] = {}
    first: dict[str, tuple[Run, dict[str, Any]]] = {}
    found = []
    for name, (runs, records) in zip(names, groups, strict=True):
        seed = records[0]["seed"]
        choices = records[0].get("choices", {})
        label = name or choices.get("method") or choices.get("merger") or "run"
        twin = twins.setdefault((label, seed), runs[0])
        if twin is not runs[0]:
            raise InputError(
                f"{twin.folder} and {runs[0].folder} are the same run twice (equal overrides and "
                "seed)",
                "keep one of them below runs=FOLDER",
            )
        if (settings := training_settings(runs[0], records[0])) is not None:
            other, others = first.setdefault(label, (runs[0], settings))
            if key := next(
                (
                    key
                    for key in others | settings
                    if others.get(key, ...) != settings.get(key, ...)
                ),
                None,
            ):
                raise InputError(
                    f"{other.folder} and {runs[0].folder} would be seeds of one row, but differ "
                    f"in {key} ({others.get(key)} and {settings.get(key)})",
                    f"report them from different folders, or train them with {key}=VALUE among "
                    "the overrides",
                )
        digest = (
            None
            if settings is None
            else hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
        )
        found.append(replace(_trial(label, seed, runs, records), settings=digest))
    return found


def _varied(settings: Sequence[tuple[str, ...]], kinds: Sequence[bool]) -> list[str]:
    """Of the settings of each run what not all runs of its kind share; of what is alone of its kind what not all runs share."""
    common = {}
    for kind in set(kinds):
        alike = {own for own, other in zip(settings, kinds, strict=True) if other == kind}
        common[kind] = set.intersection(*map(set, alike if len(alike) > 1 else settings))
    return [
        " ".join(" ".join(part for part in own if part not in common[kind]).split())
        for own, kind in zip(settings, kinds, strict=True)
    ]


def _trial(
    label: str, seed: int | None, runs: Sequence[Run], records: Sequence[Mapping[str, Any]]
) -> Row:
    parts: list[pl.DataFrame] = []
    places: dict[str, Path] = {}
    shown: dict[tuple[str, str], Mapping[str, Any]] = {}
    for run, record in zip(runs, records, strict=True):
        table = run.results()
        if "stamp" not in table.columns or not record.get("stamps"):
            raise InputError(
                f"The numbers in {run.folder} are of an older version, which did not say by what "
                "protocol they were made",
                "test the run again with fmsd evaluate, or train it anew",
            )
        if unknown := set(table["stamp"]) - set(record["stamps"]):
            raise InputError(
                f"{run.folder} has numbers of the stamp {min(map(str, unknown))}, of which its "
                "run.json says nothing",
                "test the run again",
            )
        if lacking := sorted(
            {"manifest", "naming", "video_score", "train"}
            - set.intersection(*map(set, record["stamps"].values()))
        ):
            raise InputError(
                f"{run.folder / 'run.json'} has a stamp without {lacking[0]}", "test the run again"
            )
        facts = {
            (dataset, level): record["stamps"][stamp]
            for dataset, level, stamp in table.select("dataset", "level", "stamp").iter_rows()
        }
        for dataset in sorted({dataset for dataset, _ in facts} & places.keys()):
            pairs = [
                (shown[place], own)
                for place, own in facts.items()
                if place[0] == dataset and place in shown
            ]
            if names := sorted(
                {
                    name
                    for one, other in pairs
                    for name in one | other
                    if one.get(name) != other.get(name)
                }
            ):
                told = (run.folder, dataset, places[dataset].parent.parent, ", ".join(names))
                log.warning(
                    "%s was tested on %s, too, but the numbers of %s count (they differ in %s).",
                    *told,
                )
        shown = facts | shown
        new = table.filter(~pl.col("dataset").is_in(list(places)))
        parts.append(new)
        places |= {
            name: run.folder / "predictions" / f"{name}.parquet"
            for name in new["dataset"].unique(maintain_order=True)
        }
    table = pl.concat(parts, how="diagonal")
    label += f" ({ORACLE})" if table["selection"].str.contains(ORACLE).any() else ""
    return Row(label, seed, tuple(runs), tuple(records), table, places)


def _record(run: Run) -> dict[str, Any]:
    """What a run's `run.json` says, with all that a row needs."""
    record = run.record()
    if lacking := [key for key in ("overrides", "seed") if key not in record]:
        raise InputError(
            f"{run.folder / 'run.json'} does not say {lacking[0]}",
            "put it back, or train the run anew",
        )
    return record


def _time(run: Run, record: Mapping[str, Any]) -> float:
    """When a test was made, in seconds; older versions did not write it down."""
    if "time" not in record:
        return (run.folder / "results.csv").stat().st_mtime
    try:
        return datetime.fromisoformat(record["time"]).timestamp()
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{run.folder / 'run.json'} has the time {record['time']!r}",
            "correct it to one like 2026-01-31T12:00:00+00:00",
        ) from error


def training_settings(run: Run, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The part of a run's configuration that what it learned follows from, besides its data and seed; None where it is not kept.

    How an evaluation or a merge puts frames into batches changes nothing.
    """
    if not run.config.is_file():
        return None
    try:
        settings = flatten(parse_settings(run.config.read_text(encoding="utf-8"), run.config))
    except UnicodeDecodeError as error:
        raise InputError(
            f"{run.config} is no configuration ({reason(error)})", "put it back, or remove it"
        ) from error
    idle = () if {"run", "merged"}.isdisjoint(record) else ("data.",)
    return {
        key: value
        for key, value in {**ADDED, **settings}.items()
        if key.startswith(TRAINING_KEYS)
        and not key.startswith(idle)
        and key not in PATH_KEYS
        and key.rpartition(".")[2] != "seed"
    }


def _settings(overrides: Sequence[str]) -> tuple[str, ...]:
    """A run's overrides without its seed, in one order; what was added is no other setting than what was changed."""
    return tuple(
        sorted(
            override.lstrip("+")
            for override in overrides
            if not override.lstrip("+").startswith("seed=")
        )
    )
