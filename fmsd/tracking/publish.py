"""What the loggers of a run are given beside its curves: the configuration when it begins, and what it found when it ends.

All loggers get the same numbers under the same names. What else one of them can show stands in its
own file.
"""

import contextlib
import json
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import polars as pl
import torch
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from fmsd.errors import InputError, reason
from fmsd.figures.curves import rates, thinned
from fmsd.metrics.table import with_scores
from fmsd.metrics.video import aggregate_videos, group_by_folder
from fmsd.runs import job
from fmsd.runs.folder import CORRUPTIONS, PUBLISHED, Run, flat, read_results, write
from fmsd.tables import read_parquet
from fmsd.tracking import mlflow, tensorboard, wandb

log = logging.getLogger(__name__)

VARIANT = "variant"
"""Where a logged configuration says what is averaged with one another."""

Factory = Callable[[Path], Logger]
"""Makes the logger of the run in a folder."""


class Published(TypedDict):
    """What a logger has: the stamps of every dataset by level, and the severities of every robustness curve."""

    stamps: dict[str, dict[str, str]]
    curves: dict[str, list[int]]


def made(factories: Mapping[str, Factory], folder: Path) -> dict[str, Logger]:
    """The loggers of the run in a folder, by name.

    Raises:
        InputError: one of them does not work.
    """
    found = {}
    for name, factory in factories.items():
        with working(name):
            found[name] = factory(folder)
    return found


def begin(loggers: Iterable[Logger], folder: Path) -> None:
    """Gives loggers the configuration of a run.

    Raises:
        InputError: one of them does not work.
    """
    settings = job.settings(folder)
    settings[VARIANT] = variant(settings)
    for logger in loggers:
        with working(title(logger)):
            if isinstance(logger, MLFlowLogger):
                logger.log_hyperparams(
                    {mlflow.named(key): value for key, value in flat(settings).items()}
                )
            else:
                logger.log_hyperparams(settings)


def variant(settings: Mapping[str, Any]) -> str:
    """What runs of one bar share: method, wrapper, backbone and data; the selection where it is not iid, and the protocol if one was chosen."""
    choices = settings["choices"]
    parts = [choices.get(group) for group in ("method", "wrapper", "backbone", "data")]
    if settings.get("select", "iid") != "iid":
        parts.append(settings["select"])
    return ", ".join(str(part) for part in (*parts, choices.get("protocol")) if part is not None)


def finish(loggers: Mapping[str, Logger], run: Run) -> None:
    """Gives loggers what a run found and records which of them took it; failures are logged, and the next evaluation tries again."""
    for name, logger in loggers.items():
        with spared(title(logger), run.folder):
            _record(run, name, _publish_run(logger, run))


def extend(factories: Mapping[str, Factory], run: Run, evaluation: Run) -> None:
    """Gives the loggers of a run what an evaluation of it found and they do not have: other test datasets, and corruptions.

    A logger that did not take the run's own numbers gets these first. Numbers of one dataset in a
    log have one stamp: those of another are logged and left out.
    """
    if not factories:
        return
    try:
        known = published(run)
    except InputError as error:
        log.warning("The loggers get nothing of this evaluation: %s", error)
        return
    own = (
        _contents(run.results(), robustness(run))
        if (run.folder / "results.csv").is_file()
        else _contents(None, {})
    )
    had = {name: known.get(name, own) for name in factories}
    results = evaluation.results()
    found = stamped(results)
    _warn_of_other_stamps([part["stamps"] for part in had.values()], found, evaluation.folder)
    for name, factory in factories.items():
        late = bool(own["stamps"]) and name not in known
        new, curves = _missing(had[name], results, evaluation)
        if not late and new.is_empty() and not curves:
            continue
        with spared(f"logger={name}", evaluation.folder):
            logger = factory(run.folder)
            begin([logger], run.folder)
            if late:
                _record(run, name, _publish_run(logger, run))
            if not new.is_empty() or curves:
                publish(logger, evaluation, new, curves, {}, run.record().get("steps") or 0)
            if isinstance(logger, WandbLogger):
                wandb.close()  # a part of what may fail: only then all of it is written
            _record(run, name, _contents(new, curves))
    close(evaluation.folder)


def published(run: Run) -> dict[str, Published]:
    """What every logger of a run has taken to its end, by the logger's name.

    Raises:
        InputError: the file is damaged.
    """
    book = run.folder / PUBLISHED
    try:
        known = json.loads(book.read_text(encoding="utf-8")) if book.is_file() else {}
        return {name: _checked(part) for name, part in known.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{book} does not say what the loggers have ({reason(error)})",
            "put it back, or remove it: the loggers then get everything again",
        ) from error


def _checked(part: Any) -> Published:
    stamps = {
        str(dataset): {str(level): str(stamp) for level, stamp in own.items()}
        for dataset, own in part["stamps"].items()
    }
    return {
        "stamps": stamps,
        "curves": {
            str(name): [int(severity) for severity in own] for name, own in part["curves"].items()
        },
    }


def _record(run: Run, name: str, new: Published) -> None:
    """Adds to a run's record what a logger has taken."""
    known = published(run)
    had = known.get(name) or _contents(None, {})
    curves = {
        curve: sorted({*had["curves"].get(curve, []), *new["curves"].get(curve, [])})
        for curve in had["curves"] | new["curves"]
    }
    known[name] = {"stamps": new["stamps"] | had["stamps"], "curves": curves}
    write(run.folder / PUBLISHED, json.dumps(known, indent=2) + "\n")


def _contents(results: pl.DataFrame | None, curves: Mapping[int, Mapping[str, float]]) -> Published:
    """What is in a table of results and in robustness curves."""
    severities: dict[str, list[int]] = {}
    for severity, own in curves.items():
        for name in own:
            severities.setdefault(name, []).append(severity)
    return {"stamps": {} if results is None else stamped(results), "curves": severities}


def _publish_run(logger: Logger, run: Run) -> Published:
    """Gives a logger the numbers of a training, and returns what they were."""
    results, curves, record = run.results(), robustness(run), run.record()
    publish(logger, run, results, curves, cost(record), record.get("steps") or 0)
    return _contents(results, curves)


def _missing(
    had: Published, results: pl.DataFrame, evaluation: Run
) -> tuple[pl.DataFrame, dict[int, dict[str, float]]]:
    """The results, and the points of robustness curves, of an evaluation that a logger does not have; without datasets of another stamp."""
    found = stamped(results)
    other = [name for name, own in found.items() if had["stamps"].get(name, own) != own]
    curves: dict[int, dict[str, float]] = {}
    for severity, own in robustness(evaluation, without=other).items():
        for name, value in own.items():
            before = had["curves"].get(name, [])
            if severity not in before and not (
                before and "/mean/" in name
            ):  # a mean over other corruptions is another number
                curves.setdefault(severity, {})[name] = value
    return results.filter(~pl.col("dataset").is_in([*had["stamps"]])), curves


def _warn_of_other_stamps(
    had: Sequence[Mapping[str, Mapping[str, str]]],
    found: Mapping[str, Mapping[str, str]],
    folder: Path,
) -> None:
    pairs = {
        f"{name}: {_listed(stamps[name])} there, {_listed(own)} here"
        for stamps in had
        for name, own in found.items()
        if stamps.get(name, own) != own
    }
    if pairs:
        log.warning(
            "The loggers have numbers of another protocol stamp (%s) and keep them; those of this "
            "evaluation are in %s and in fmsd report.",
            *("; ".join(sorted(pairs)), folder),
        )


def _listed(stamps: Mapping[str, str]) -> str:
    return ", ".join(f"{stamp} of {level}s" for level, stamp in stamps.items())


def publish(
    logger: Logger,
    run: Run,
    results: pl.DataFrame,
    curves: Mapping[int, Mapping[str, float]],
    more: Mapping[str, float],
    step: int,
) -> None:
    """Gives a logger results and robustness curves of a run or an evaluation, and what else lies in its folder; an evaluation's by its name."""
    stamps, place = (
        stamped(results),
        f"evaluations/{run.folder.name}/" if "run" in run.record() else "",
    )
    values = numbers(results) | dict(more)
    match logger:
        case WandbLogger():
            logger.log_metrics(values, step)
            wandb.publish(logger, run, stamps, rocs(run, set(stamps)), place)
            wandb.robustness(logger, curves)
        case MLFlowLogger():
            for point, own in ((step, values), *curves.items()):
                logger.log_metrics(
                    {mlflow.named(name): value for name, value in own.items()}, point
                )
            mlflow.publish(logger, run, stamps, place)
        case _:
            for point, own in ((step, values), *curves.items()):
                logger.log_metrics(dict(own), point)
            if isinstance(logger, TensorBoardLogger):
                tensorboard.publish(logger, run, stamps, place)
            logger.save()


def numbers(results: pl.DataFrame) -> dict[str, float]:
    """Each number of a result table as `test/DATASET/LEVEL_METRIC`."""
    return {
        f"test/{row['dataset']}/{row['level']}_{row['metric']}": row["value"]
        for row in results.iter_rows(named=True)
        if row["value"] is not None
    }


def cost(record: Mapping[str, Any]) -> dict[str, float]:
    """What a training took: trainable parameters, all of them, and minutes."""
    return {
        "cost/trainable": record["trainable"],
        "cost/parameters": record["parameters"],
        "cost/minutes": record["seconds"] / 60,
    }


def stamped(results: pl.DataFrame) -> dict[str, dict[str, str]]:
    """The stamp of every dataset and level."""
    found: dict[str, dict[str, str]] = {}
    for dataset, level, stamp in (
        results.select("dataset", "level", "stamp").unique(maintain_order=True).rows()
    ):
        found.setdefault(dataset, {})[level] = stamp
    return found


def robustness(run: Run, without: Collection[str] = ()) -> dict[int, dict[str, float]]:
    """Video AUCs under corruptions by severity, each as `corruptions/DATASET/CORRUPTION/video_auc`; `mean` is that over the corruptions.

    A curve begins with the clean images, severity 0. There are none where nothing was corrupted.

    Args:
        without: datasets that are left out.
    """
    if not (run.folder / CORRUPTIONS).is_file():
        return {}
    aucs = read_results(run.folder / CORRUPTIONS).filter(
        ~pl.col("dataset").is_in([*without]), level="video", metric="auc"
    )
    aucs = aucs.select("dataset", "corruption", "severity", "value")
    clean, others = aucs.filter(severity=0).drop("corruption"), aucs.filter(pl.col("severity") > 0)
    begun = clean.join(
        others.select("dataset", "corruption").unique(maintain_order=True), on="dataset"
    ).select(aucs.columns)
    whole = pl.concat([begun, others])
    means = (
        whole.group_by("dataset", "severity", maintain_order=True)
        .agg(pl.col("value").mean())
        .with_columns(corruption=pl.lit("mean"))
    )
    found: dict[int, dict[str, float]] = {}
    for dataset, corruption, severity, value in (
        pl.concat([whole, means.select(aucs.columns)]).sort("severity", maintain_order=True).rows()
    ):
        found.setdefault(severity, {})[f"corruptions/{dataset}/{corruption}/video_auc"] = value
    return found


def rocs(run: Run, datasets: set[str]) -> dict[str, pl.DataFrame]:
    """The ROC curves of datasets at every level, by dataset, as the run's stamps say that frames become videos."""
    found: dict[str, list[pl.DataFrame]] = {}
    for facts in run.record()["stamps"].values():
        if (dataset := facts["dataset"]) in datasets:
            frames = with_scores(read_parquet(run.folder / "predictions" / f"{dataset}.parquet"))
            grouped = group_by_folder(frames) if facts["naming"] == "folder" else frames
            items = (
                grouped
                if facts["level"] == "frame"
                else aggregate_videos(grouped, facts["video_score"])
            )
            found.setdefault(dataset, []).append(
                roc(items).select(pl.lit(facts["level"]).alias("level"), pl.all())
            )
    return {dataset: pl.concat(parts) for dataset, parts in found.items()}


def roc(items: pl.DataFrame) -> pl.DataFrame:
    """The ROC curve of scored frames or videos."""
    score, label = (
        torch.from_numpy(items[name].cast(kind).to_numpy(writable=True))
        for name, kind in (("score", pl.Float64), ("label", pl.Int64))
    )
    return pl.DataFrame(
        dict(
            zip(
                ("false_positive_rate", "true_positive_rate"),
                thinned(*rates(score, label)),
                strict=True,
            )
        )
    )


def title(logger: Logger) -> str:
    """A logger by its name."""
    return type(logger).__name__.removesuffix("Logger")


@contextlib.contextmanager
def working(who: str) -> Iterator[None]:
    """Says what is wrong with a logger before a run rests on it.

    Raises:
        InputError: something is.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"The logger {who} does not work ({reason(error).rstrip('.')})",
            "correct its settings, or train with logger=csv",
        ) from error


@contextlib.contextmanager
def spared(who: str, folder: Path) -> Iterator[None]:
    """Tells of what goes wrong with a logger, and goes on."""
    try:
        yield
    except Exception as error:
        log.warning(
            "%s did not take all results (%s); they lie in %s.",
            who,
            reason(error).rstrip("."),
            folder,
        )


def close(folder: Path) -> None:
    """Ends what a logger holds open, also for a job that failed."""
    with spared("Weights & Biases", folder):
        wandb.close()
