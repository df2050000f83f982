"""What a report's page tells, part by part; a part that has nothing to show is left out."""

import base64
import functools
import io
import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
from PIL import Image

from fmsd.errors import InputError, reason
from fmsd.figures import curves, style
from fmsd.metrics.table import format_video_counts
from fmsd.peft.mask import LayerMask, MaskHistory, ScoredLayer
from fmsd.report import html
from fmsd.report.comparability import Marks, differing, shortened
from fmsd.report.html import Section
from fmsd.report.resamples import Evidence, Scores
from fmsd.report.rows import Trial
from fmsd.report.tables import LOWER, NAMES, Table, lacking, results_table
from fmsd.runs.folder import EXPLANATIONS, MASK, SPECTRA
from fmsd.tables import read_csv

LINES = 12
"""Rows that pictures show at most."""

WIDEST = 1400
"""Pixels across of an embedded picture at most."""


@dataclass(frozen=True)
class Overview:
    """All that a page is made of.

    Args:
        folder: what is reported.
        tables: the results by metric and level; the first is the main one.
        against: the differences from one row, if they were asked for.
        shown: the rows that pictures show, and the places of their lines.
        marks: of the results.
        robustness: results with run, seed, corruption and severity.
        robustness_marks: of these.
    """

    folder: Path
    trials: Sequence[Trial]
    tables: Mapping[tuple[str, str], Table]
    against: Sequence[Table]
    shown: Mapping[str, int]
    evidence: Evidence
    marks: Marks
    robustness: pl.DataFrame | None
    robustness_marks: Marks

    @property
    def metric(self) -> str:
        """The metric of the main table."""
        return next(iter(self.tables))[0]

    @functools.cached_property
    def corrupted(self) -> dict[str, Table]:
        """The tables of robustness by dataset; none where nothing was tested under corruptions."""
        return (
            {}
            if self.robustness is None
            else robustness_tables(self.robustness, self.robustness_marks)
        )

    @property
    def firsts(self) -> dict[str, Trial]:
        """The first seed of each row that pictures show."""
        found: dict[str, Trial] = {}
        for trial in self.trials:
            if trial.label in self.shown:
                found.setdefault(trial.label, trial)
        return {label: found[label] for label in self.shown}

    def sized(self, dataset: str) -> str:
        """A dataset with the numbers of its test videos."""
        counts = next(iter(self.tables.values())).videos.get(dataset)
        return dataset if counts is None else f"{dataset} ({counts})"

    @property
    def datasets(self) -> list[str]:
        """The test datasets."""
        return list(dict.fromkeys(dataset for trial in self.trials for dataset in trial.places))


def page(overview: Overview) -> str:
    """The page of a report."""
    count, rows = len(overview.trials), len({trial.label for trial in overview.trials})
    versions = sorted(
        {
            version
            for trial in overview.trials
            if (version := trial.record.get("versions", {}).get("fmsd"))
        }
    )
    subtitle = (
        f"{plural(count, 'run')} in {plural(rows, 'row')}, "
        f"{plural(len(overview.datasets), 'test dataset')}"
    )
    subtitle += f"; fmsd {', '.join(versions)}" if versions else ""
    return html.page(
        f"Report on {overview.folder.resolve().name}",
        subtitle,
        [section for make in SECTIONS if (section := make(overview)) is not None],
    )


def results(overview: Overview) -> Section:
    """The tables, one at a time, and the differences."""
    panes = {
        (NAMES.get(metric, metric), level): html.results(table, overview.shown)
        for (metric, level), table in overview.tables.items()
    }
    body = html.choice(panes, ("metric", "level"))
    if overview.against:
        body += html.choice(
            {(table.level,): html.results(table, {}) for table in reversed(overview.against)},
            ("level of the differences",),
        )
    body += html.paragraph(
        "A click on a header sorts. Lines before names are those of the pictures below.", "quiet"
    )
    return Section("results", "Results", body)


def ranking(overview: Overview) -> Section | None:
    """ROC and DET curves."""

    def one(
        draw: Callable[[Sequence[curves.Scored | None]], Any], name: str, what: str
    ) -> list[str]:
        return [
            html.picture(
                draw([own and own.videos for own in lines]),
                f"{name} curves on {dataset}",
                f"{overview.sized(dataset)}: {what}",
            )
            for dataset, lines in _lines(overview)
        ]

    if not overview.evidence.scores:
        return None
    body = html.paragraph(
        f"Of videos, by {_first(overview)}. The DET curve bends the axes so that normally "
        "distributed scores make a straight line; "
        "rates below 0.1 % or above 60 % lie outside.",
        "quiet",
    )
    body += (
        html.legend(overview.shown, overview.marks)
        + html.grid(one(curves.roc, "ROC", "ROC"))
        + html.grid(one(curves.det, "DET", "DET"))
    )
    return Section("curves", "ROC and DET curves", body)


def histograms(overview: Overview) -> Section | None:
    """How scores are spread, a row at a time."""
    panes = {}
    for row in overview.shown:
        pictures = [
            html.picture(
                curves.histograms(own.domains),
                f"Scores of {row} on {dataset}",
                overview.sized(dataset),
            )
            for dataset in overview.datasets
            if (own := overview.evidence.scores.get((row, dataset))) is not None
        ]
        if pictures:
            panes[row,] = html.paragraph(row, "quiet") + html.grid(pictures, wide=True)
    if not panes:
        return None
    return Section(
        "scores",
        "Scores by domain",
        html.paragraph(f"Of frames, by {_first(overview)}.", "quiet")
        + html.choice(panes, ("row",)),
    )


def calibration(overview: Overview) -> Section | None:
    """Whether a score is a probability."""
    if not overview.evidence.scores:
        return None
    pictures = [
        html.picture(
            curves.reliability([own and own.reliability for own in lines]),
            f"Reliability on {dataset}",
            overview.sized(dataset),
        )
        for dataset, lines in _lines(overview)
    ]
    body = html.paragraph(
        f"The share of fakes among frames of about the same score, by {_first(overview)}. On the "
        "diagonal a score is a probability.",
        "quiet",
    )
    return Section(
        "calibration",
        "Reliability",
        body + html.legend(overview.shown, overview.marks) + html.grid(pictures),
    )


def domains(overview: Overview) -> Section | None:
    """Each forgery by itself."""
    table, metric = overview.evidence.domains, overview.metric
    if table.is_empty() or table["domain"].n_unique() < 2:
        return None
    panes = {}
    for level in ("video", "frame"):
        for dataset in overview.datasets:
            own = table.filter(dataset=dataset).with_columns(dataset=pl.col("domain"))
            if metric in own.filter(level=level)["metric"]:
                marks = overview.marks.at((dataset, domain) for domain in own["domain"])
                made = replace(
                    results_table(own, metric, level, {}, {}, marks),
                    title=f"{NAMES.get(metric, metric)} per {level} on {dataset}",
                )
                panes[level, dataset] = html.results(made, {}, heat=metric == "auc")
    body = html.paragraph(
        "The fakes of one forgery against all reals of their dataset.", "quiet"
    ) + html.choice(panes, ("level", "dataset"))
    return Section("domains", "Forgeries", body) if panes else None


def robustness(overview: Overview) -> Section | None:
    """AUC under corruptions."""
    table = overview.robustness
    if table is None:
        return None
    parts = []
    for dataset, made in overview.corrupted.items():
        own = table.filter(dataset=dataset, level="video", metric="auc")
        rows = [row for row in overview.shown if row in own["run"]]
        parts.append(html.results(made, overview.shown))
        if rows:
            places = [row if row in rows else "" for row in overview.shown]
            keys = ("run", "level", "metric", "corruption", "severity")
            drawn = own.group_by(keys, maintain_order=True).agg(pl.col("value").mean())
            caption = f"{overview.sized(dataset)}: AUC per video by severity"
            parts.append(
                html.picture(style.robustness(drawn, places), f"Robustness on {dataset}", caption)
            )
    return Section("robustness", "Robustness", "".join(parts))


def robustness_tables(table: pl.DataFrame, marks: Marks) -> dict[str, Table]:
    """The video AUC of every row on clean images and under each corruption, a table for each dataset.

    Args:
        table: results with run, seed, corruption and severity.
    """
    tables = {}
    for (dataset,), own in table.filter(level="video", metric="auc").group_by(
        "dataset", maintain_order=True
    ):
        worse = own.filter(pl.col("severity") > 0)
        kept = {
            str(name): shared(held)
            for (name,), held in worse.group_by("corruption", maintain_order=True)
        }
        means = [
            worse.filter(pl.col("severity").is_in(severities), corruption=name)
            .group_by("run", "seed", maintain_order=True)
            .agg(pl.col("value").mean(), pl.col("n_videos", "n_real_videos").first())
            for name, severities in kept.items()
        ]
        columns = ["clean", *kept]
        parts = [
            own.filter(severity=0).select("run", "seed", "value", "n_videos", "n_real_videos"),
            *means,
        ]
        tidy = pl.concat(
            [
                held.with_columns(dataset=pl.lit(column))
                for column, held in zip(columns, parts, strict=True)
            ]
        )
        tidy = tidy.with_columns(metric=pl.lit("auc"), level=pl.lit("video"))
        made = results_table(
            tidy, "auc", "video", {}, {}, marks.at((dataset, column) for column in columns)
        )
        said = "; ".join(
            f"{name}: {', '.join(map(str, severities)) or 'none'}"
            for name, severities in kept.items()
        )
        counts = "".join(f"{text}. " for text in format_video_counts(own).values())
        caption = f"{counts}Mean over the severities that all runs have, {said}."
        title = f"AUC per video on {dataset}"
        tables[str(dataset)] = replace(
            made, title=title, columns=columns, caption=caption, videos={}, lacking=lacking(own)
        )
    return tables


def masks(overview: Overview) -> Section | None:
    """Which layers learned."""

    def one(row: str, held: Mapping[str, Any]) -> str | None:
        if "layers" in held:
            figure = style.layer_mask(
                LayerMask(held["settings"], tuple(ScoredLayer(**layer) for layer in held["layers"]))
            )
        elif held["steps"]:
            figure = style.mask_history(
                MaskHistory(held["units"], held["steps"], held["active"], held["scores"])
            )
        else:
            return None
        return html.picture(figure, f"Layers of {row}", row)

    return _by_row(overview, "masks", "Layers that learned", MASK, one)


def spectra(overview: Overview) -> Section | None:
    """What training did to the singular values."""

    def one(row: str, held: Mapping[str, Any]) -> str | None:
        if not held["layers"]:
            return None
        return html.picture(
            curves.spectra(held["layers"]),
            f"Spectra of {row}",
            f"{row}: singular values, largest first",
        )

    return _by_row(overview, "spectra", "Spectra before and after", SPECTRA, one)


def training(overview: Overview) -> Section | None:
    """How training went."""
    logs = {}
    for row, trial in overview.firsts.items():
        path = trial.runs[0].folder / "logs" / "metrics.csv"
        logs[row] = (
            read_csv(path, infer_schema_length=None)
            if path.is_file() and path.stat().st_size > 1
            else pl.DataFrame()
        )
    pictures = []
    for column, what in (
        ("train/loss", "training loss"),
        ("val/video_auc", "AUC per video on the validation split"),
    ):
        lines = [
            tuple(series.to_list() for series in log.select("step", column).drop_nulls())
            if {"step", column} <= {*log.columns}
            else None
            for log in logs.values()
        ]
        if any(lines):
            pictures.append(
                html.picture(
                    curves.training(
                        [line if line and line[0] else None for line in lines],
                        what.partition(" per ")[0],
                    ),
                    f"Training: {what}",
                    what,
                )
            )  # pyright: ignore[reportArgumentType]
    if not pictures:
        return None
    body = (
        html.paragraph(f"Of {_first(overview)}.", "quiet")
        + html.legend(overview.shown, overview.marks)
        + html.grid(pictures, wide=True)
    )
    return Section("training", "Training", body)


def explanations(overview: Overview) -> Section | None:
    """What detectors look at."""
    panes = {}
    for row, trial in overview.firsts.items():
        folders = [run.folder / EXPLANATIONS for run in trial.runs]
        paths = {
            path: path.relative_to(folder).with_suffix("")
            for folder in folders
            for path in sorted(folder.rglob("*.png"))
        }
        if paths:
            panes[row,] = html.paragraph(row, "quiet") + "".join(
                html.photograph("webp", _encoded(path), f"{row}: {name}")
                for path, name in paths.items()
            )
    return Section("explanations", "Explanations", html.choice(panes, ("row",))) if panes else None


def cost(overview: Overview) -> Section:
    """What each row took."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for trial in overview.trials:
        groups.setdefault(trial.label, []).append(trial.record)
    rows = []
    for label, records in groups.items():
        seconds = [record["seconds"] for record in records if record.get("seconds") is not None]
        devices = dict.fromkeys(
            str(record.get("accelerator") or record.get("device") or "-") for record in records
        )
        peak = [record["peak_memory"] for record in records if record.get("peak_memory")]
        trainable, parameters = records[0].get("trainable"), records[0].get("parameters")
        rows.append(
            (
                label,
                len(records),
                f"{sum(seconds) / len(seconds) / 60:.1f}" if seconds else None,
                ", ".join(devices),
                records[0].get("processes"),
                None if trainable is None else f"{trainable:,}",
                f"{100 * trainable / parameters:.2f} %"
                if trainable is not None and parameters
                else None,
                f"{max(peak) / 2**30:.1f}" if peak else None,
            )
        )
    header = [
        "",
        "runs",
        "minutes",
        "device",
        "processes",
        "trained parameters",
        "share",
        "peak GPU memory, GiB",
    ]
    kept = [
        place
        for place, name in enumerate(header)
        if not place or any(row[place] is not None for row in rows)
    ]
    table = html.words(
        "Cost of a run, mean over seeds",
        [header[place] for place in kept],
        [[row[place] for place in kept] for row in rows],
        {0, kept.index(3)} if 3 in kept else {0},
    )
    return Section("cost", "Cost", table)


def protocol(overview: Overview) -> Section:
    """What the numbers rest on, each stamp once."""
    stamps = {
        stamp: facts
        for trial in overview.trials
        for stamp, facts in trial.facts().items()
        if stamp in trial.results["stamp"]
    }
    names = differing(list(stamps.values()))
    common = {
        name: value for name, value in next(iter(stamps.values())).items() if name not in names
    }
    body = html.paragraph(
        "Numbers may only be compared where these facts agree. Each stamp is the hash of them all.",
        "quiet",
    )
    body += html.facts({name: shortened(value, 400) for name, value in common.items()})
    first = [name for name in ("dataset", "level") if name in names]
    others = [name for name in names if name not in first]
    lines = [
        [stamp, *(shortened(facts.get(name), 200) for name in (*first, *others))]
        for stamp, facts in stamps.items()
    ]
    return Section(
        "protocol",
        "Protocol",
        body
        + html.words(
            "What differs between stamps", ["stamp", *first, *others], lines, range(len(names) + 1)
        ),
    )


def repeat(overview: Overview) -> Section:
    """The commands and what they ran with."""
    commands = dict.fromkeys(
        spelled(record["command"])
        for trial in overview.trials
        for record in trial.records
        if record.get("command")
    )
    body = html.code("\n".join(commands))
    facts: dict[str, str] = {}
    for name, values in {
        "git revision": {str(trial.record.get("revision")) for trial in overview.trials},
        "machine": {str(trial.record.get("machine")) for trial in overview.trials},
        "versions": {
            ", ".join(
                f"{package} {version}"
                for package, version in trial.record.get("versions", {}).items()
            )
            for trial in overview.trials
        },
    }.items():
        if known := sorted(values - {"None", ""}):
            facts[name] = "; ".join(known)
    body += html.facts(facts)
    lines = [
        (
            trial.label,
            trial.seed,
            str(run.folder.relative_to(overview.folder)),
            trial.record.get("selection"),
        )
        for trial in overview.trials
        for run in trial.runs
    ]
    body += html.words(
        "Where the numbers lie",
        ["", "seed", f"folder below {overview.folder.resolve().name}", "selection"],
        lines,
        {0, 2, 3},
    )
    return Section("repeat", "How to repeat", body)


SECTIONS: tuple[Callable[[Overview], Section | None], ...] = (
    *(
        results,
        ranking,
        histograms,
        calibration,
        domains,
        robustness,
        masks,
        spectra,
        training,
        explanations,
    ),
    *(cost, protocol, repeat),
)
"""The parts in their order."""


def shared(table: pl.DataFrame) -> list[int]:
    """The severities of one corruption that all runs have that were tested under it."""
    return sorted(
        set.intersection(*(set(own["severity"]) for _, own in table.group_by("run", "seed")))
    )


def pictured(table: Table) -> dict[str, int]:
    """The rows that pictures show: at most twelve, those that are best on average over the columns; with the places of their lines."""
    sign = 1 if table.metric in LOWER else -1
    means = {
        row: sign * sum(cell.value for cell in own.values()) / len(own)
        for row, own in table.cells.items()
    }
    best = set(sorted(means, key=lambda row: means[row])[:LINES])
    return {row: place for place, row in enumerate(row for row in table.cells if row in best)}


def spelled(command: Sequence[str]) -> str:
    """A command as one types it; its first word is the program with its verb."""
    return " ".join([*command[:1], *map(shlex.quote, command[1:])])


def plural(count: int, what: str) -> str:
    """A number of things."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def _first(overview: Overview) -> str:
    """Which runs pictures show, in words."""
    rows = {trial.label for trial in overview.trials}
    seeds = len(overview.trials) > len(rows)
    every = (
        "each row"
        if len(rows) == len(overview.shown)
        else f"each of the {len(overview.shown)} rows of {len(rows)} with the best mean"
    )
    return f"the first seed of {every}" if seeds else f"the run of {every}"


def _lines(overview: Overview) -> Iterator[tuple[str, list[Scores | None]]]:
    """The scores of each row on a dataset, in the order of their lines."""
    for dataset in overview.datasets:
        lines = [overview.evidence.scores.get((row, dataset)) for row in overview.shown]
        if any(lines):
            yield dataset, lines


def _by_row(
    overview: Overview,
    name: str,
    title: str,
    file: str,
    one: Callable[[str, Mapping[str, Any]], str | None],
) -> Section | None:
    """A part with a picture of each row whose run has a file of JSON, a row at a time."""
    made = {}
    for row, trial in overview.firsts.items():
        path = trial.runs[0].folder / file
        try:
            body = (
                one(row, json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path} does not hold what a run writes there ({reason(error)})",
                "put it back, or remove it",
            ) from error
        if body is not None:
            made[row,] = body
    return (
        Section(
            name,
            title,
            html.paragraph(f"Of {_first(overview)}.", "quiet") + html.choice(made, ("row",)),
        )
        if made
        else None
    )


def _encoded(path: Path) -> str:
    """A picture as base64 of WebP, no larger than a page needs it."""
    packed = io.BytesIO()
    try:
        with Image.open(path) as image:
            image.thumbnail((WIDEST, 4 * WIDEST))
            image.convert("RGB").save(packed, "WEBP", quality=82)
    except (OSError, ValueError, SyntaxError) as error:  # what Pillow says of broken files
        raise InputError(
            f"{path} is no picture ({reason(error)})", "put it back, or remove it"
        ) from error
    return base64.b64encode(packed.getvalue()).decode()
