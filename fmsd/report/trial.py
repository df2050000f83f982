"""What the rows of a report are made of: trained runs, each with the evaluations that were made of it later."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from fmsd.report.run import Run
from fmsd.types import InputError, reason

log = logging.getLogger(__name__)

ORACLE = "oracle"
"""The selection that looks at the test datasets; its rows say so."""


@dataclass(frozen=True)
class Trial:
    """One run of a row, one seed.

    Args:
        label: of the row: what was varied besides the seed.
        runs: the folders that hold its numbers: its own first, then its evaluations, the newest first.
        records: what their `run.json` say.
        results: their numbers; a dataset's are those of the first folder that has it.
        places: where the predictions of each dataset lie.
    """

    label: str
    seed: int | None
    runs: tuple[Run, ...]
    records: tuple[Mapping[str, Any], ...]
    results: pl.DataFrame
    places: Mapping[str, Path]

    @property
    def record(self) -> Mapping[str, Any]:
        """What `run.json` says about the training."""
        return self.records[0]

    def facts(self) -> dict[str, Mapping[str, Any]]:
        """What the numbers rest on, by stamp."""
        return {stamp: facts for record in self.records for stamp, facts in record["stamps"].items()}

    def digest(self, dataset: str) -> str | None:
        """Of the frames that a dataset's numbers are about."""
        return next((facts["manifest"] for facts in map(self.facts().get, self.stamps(dataset)) if facts), None)

    def stamps(self, dataset: str) -> list[str]:
        """The stamps of a dataset's numbers."""
        return self.results.filter(dataset=dataset)["stamp"].unique(maintain_order=True).to_list()

    def rules(self, dataset: str) -> Mapping[str, Any]:
        """How frames become videos, as the metrics take it, and the thresholds from validation data."""
        facts = self.facts()[self.stamps(dataset)[0]]
        return {"naming": facts["naming"], "video_score": facts["video_score"], "thresholds": self.record.get("thresholds")}

    def predictions(self, dataset: str) -> pl.DataFrame:
        """The scored frames of a dataset.

        Raises:
            InputError: they are gone, or are none.
        """
        path = self.places[dataset]
        if not path.is_file():
            raise InputError(f"{path} is gone, and with it what the numbers follow from; put it back, or test the run again with fmsd evaluate.")
        try:
            return pl.read_parquet(path, columns=["path", "dataset", "domain", "video", "label", "logit"])
        except pl.exceptions.PolarsError as error:
            raise InputError(f"{path} does not hold a run's predictions ({reason(error)}); put them back, or test the run again.") from error


def trials(runs: Path) -> list[Trial]:
    """The finished runs below a folder with their evaluations; where there are evaluations only, these.

    Raises:
        InputError: there is none, one is of an older version, or the same one is there twice.
    """
    tested = [Run(path.parent) for path in sorted(runs.rglob("results.csv")) if (path.parent / "run.json").is_file()]
    records = {run: run.record() for run in tested}
    evaluations = sorted((run for run in tested if "run" in records[run]), key=lambda run: (run.folder / "results.csv").stat().st_mtime, reverse=True)
    groups = {run.folder.resolve(): [run] for run in tested if "run" not in records[run]}
    trained, orphans = bool(groups), []
    for run in evaluations:
        homes = [Path(records[run]["run"]).resolve(), run.folder.parent.parent.resolve()]
        home = next((home for home in homes if home in groups or (runs.resolve() in home.parents and (home / "run.json").is_file())), None)
        if home is None and trained:
            orphans.append(run)
        else:
            groups.setdefault(home or homes[0], []).append(run)
    if not groups:
        raise InputError(f"There is no finished run below {runs}; give a folder of runs as runs=FOLDER.")
    if orphans:
        log.warning("%d evaluations are left out, as the runs they test are not below %s, %s for one.", len(orphans), runs, orphans[0].folder)
    return _labelled([(group, [records[run] for run in group]) for group in groups.values()])


def _labelled(groups: Sequence[tuple[list[Run], list[dict[str, Any]]]]) -> list[Trial]:
    """Trials with what was varied in them besides the seed."""
    settings = [_settings(records[0]["overrides"]) for _, records in groups]
    common = set.intersection(*map(set, settings))
    twins: dict[tuple[object, ...], Run] = {}
    found = []
    for own, (runs, records) in zip(settings, groups, strict=True):
        seed = records[0]["seed"]
        twin = twins.setdefault((*own, seed), runs[0])
        if twin is not runs[0]:
            raise InputError(
                f"{twin.folder} and {runs[0].folder} are the same run twice (equal overrides and seed); keep one of them below runs=FOLDER."
            )
        label = " ".join(part for part in own if part not in common) or "run"
        found.append(_trial(label, seed, runs, records))
    return found


def _trial(label: str, seed: int | None, runs: Sequence[Run], records: Sequence[Mapping[str, Any]]) -> Trial:
    parts: list[pl.DataFrame] = []
    places: dict[str, Path] = {}
    for run, record in zip(runs, records, strict=True):
        table = run.results()
        if "stamp" not in table.columns or not record.get("stamps"):
            raise InputError(
                f"The numbers in {run.folder} are of an older version, which did not say by what protocol they were made; "
                "test the run again with fmsd evaluate, or train it anew."
            )
        if unknown := set(table["stamp"]) - set(record["stamps"]):
            raise InputError(
                f"{run.folder} has numbers of the stamp {min(map(str, unknown))}, of which its run.json says nothing; test the run again."
            )
        new = table.filter(~pl.col("dataset").is_in(list(places)))
        parts.append(new)
        places |= {name: run.folder / "predictions" / f"{name}.parquet" for name in new["dataset"].unique(maintain_order=True)}
    table = pl.concat(parts)
    label += f" ({ORACLE})" if ORACLE in table["selection"] else ""
    return Trial(label, seed, tuple(runs), tuple(records), table, places)


def _settings(overrides: Sequence[str]) -> tuple[str, ...]:
    """A run's overrides without its seed, in one order."""
    return tuple(sorted(override for override in overrides if not override.lstrip("+").startswith("seed=")))
