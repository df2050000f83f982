"""What the loggers of a run are given beside its curves: the configuration when it begins, and what it found when it ends.

All loggers get the same numbers under the same names. What else one of them can show stands in its own file.
"""

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import torch
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from fmsd.metrics.table import scored
from fmsd.metrics.video import by_folder, by_video
from fmsd.report import job, mlflow, tensorboard, wandb
from fmsd.report.curves import rates, thinned
from fmsd.report.run import Run, flat, read_results
from fmsd.types import InputError, reason

log = logging.getLogger(__name__)

Factory = Callable[[Path], Logger]
"""Makes the logger of the run in a folder."""


def made(factories: Mapping[str, Factory], folder: Path) -> list[Logger]:
    """The loggers of the run in a folder.

    Raises:
        InputError: one of them does not work.
    """
    found = []
    for name, factory in factories.items():
        with working(name):
            found.append(factory(folder))
    return found


def begin(loggers: Iterable[Logger], folder: Path) -> None:
    """Gives loggers the configuration of a run.

    Raises:
        InputError: one of them does not work.
    """
    for logger in loggers:
        with working(title(logger)):
            if isinstance(logger, MLFlowLogger):
                logger.log_hyperparams({mlflow.named(key): value for key, value in flat(job.settings(folder)).items()})
            else:
                logger.log_hyperparams(job.settings(folder))


def finish(loggers: Iterable[Logger], run: Run) -> None:
    """Gives loggers what a run found; what one of them does not take is told, and lost to it alone."""
    for logger in loggers:
        with spared(title(logger), run.folder):
            publish(logger, run, run.results(), cost(run.record()), run.record()["steps"])


def extend(factories: Mapping[str, Factory], run: Run, evaluation: Run) -> None:
    """Gives the loggers of a run what an evaluation of it found: the test datasets that the run itself was not tested on, and the corruptions."""
    known, steps = run.results()["dataset"].unique().to_list() if run.finished else [], run.record().get("steps") or 0
    new = evaluation.results().filter(~pl.col("dataset").is_in(known))
    for name, factory in factories.items():
        with spared(f"logger={name}", evaluation.folder):
            logger = factory(run.folder)
            begin([logger], run.folder)
            publish(logger, evaluation, new, {}, steps)
    close(evaluation.folder)


def publish(logger: Logger, run: Run, results: pl.DataFrame, more: Mapping[str, float], step: int) -> None:
    """Gives a logger the results of a run or an evaluation, and what else lies in its folder."""
    stamps, curves = stamped(results), robustness(run)
    values = numbers(results) | dict(more)
    match logger:
        case WandbLogger():
            logger.log_metrics(values, step)
            wandb.publish(logger, run, stamps, rocs(run, set(stamps)))
            wandb.robustness(logger, curves)
        case MLFlowLogger():
            for place, own in ((step, values), *curves.items()):
                logger.log_metrics({mlflow.named(name): value for name, value in own.items()}, place)
            mlflow.publish(logger, run, stamps)
        case _:
            for place, own in ((step, values), *curves.items()):
                logger.log_metrics(dict(own), place)
            if isinstance(logger, TensorBoardLogger):
                tensorboard.publish(logger, run, stamps)
            logger.save()


def numbers(results: pl.DataFrame) -> dict[str, float]:
    """Each number of a result table as `test/DATASET/LEVEL_METRIC`."""
    return {
        f"test/{row['dataset']}/{row['level']}_{row['metric']}": row["value"] for row in results.iter_rows(named=True) if row["value"] is not None
    }


def cost(record: Mapping[str, Any]) -> dict[str, float]:
    """What a run took: numbers that learned, all of them, and minutes."""
    return {"cost/trainable": record["trainable"], "cost/parameters": record["parameters"], "cost/minutes": record["seconds"] / 60}


def stamped(results: pl.DataFrame) -> dict[str, dict[str, str]]:
    """The stamp of every dataset and level."""
    found: dict[str, dict[str, str]] = {}
    for dataset, level, stamp in results.select("dataset", "level", "stamp").unique(maintain_order=True).rows():
        found.setdefault(dataset, {})[level] = stamp
    return found


def robustness(run: Run) -> dict[int, dict[str, float]]:
    """Video AUCs under corruptions by severity, each as `corruptions/DATASET/CORRUPTION/video_auc`; `mean` is that over the corruptions.

    A curve begins with the clean images, severity 0. There are none where nothing was corrupted.
    """
    if not (run.folder / "corruptions.csv").is_file():
        return {}
    aucs = read_results(run.folder / "corruptions.csv").filter(level="video", metric="auc").select("dataset", "corruption", "severity", "value")
    clean, others = aucs.filter(severity=0).drop("corruption"), aucs.filter(pl.col("severity") > 0)
    begun = clean.join(others.select("dataset", "corruption").unique(maintain_order=True), on="dataset").select(aucs.columns)
    whole = pl.concat([begun, others])
    means = whole.group_by("dataset", "severity", maintain_order=True).agg(pl.col("value").mean()).with_columns(corruption=pl.lit("mean"))
    found: dict[int, dict[str, float]] = {}
    for dataset, corruption, severity, value in pl.concat([whole, means.select(aucs.columns)]).sort("severity", maintain_order=True).rows():
        found.setdefault(severity, {})[f"corruptions/{dataset}/{corruption}/video_auc"] = value
    return found


def rocs(run: Run, datasets: set[str]) -> dict[str, pl.DataFrame]:
    """The ROC curves of datasets at every level, by dataset, as the run's stamps say that frames become videos."""
    found: dict[str, list[pl.DataFrame]] = {}
    for facts in run.record()["stamps"].values():
        if (dataset := facts["dataset"]) in datasets:
            frames = scored(pl.read_parquet(run.folder / "predictions" / f"{dataset}.parquet"))
            grouped = by_folder(frames) if facts["naming"] == "folder" else frames
            items = grouped if facts["level"] == "frame" else by_video(grouped, facts["video_score"])
            found.setdefault(dataset, []).append(roc(items).select(pl.lit(facts["level"]).alias("level"), pl.all()))
    return {dataset: pl.concat(parts) for dataset, parts in found.items()}


def roc(items: pl.DataFrame) -> pl.DataFrame:
    """The ROC curve of scored frames or videos."""
    score, label = (torch.from_numpy(items[name].cast(kind).to_numpy(writable=True)) for name, kind in (("score", pl.Float64), ("label", pl.Int64)))
    return pl.DataFrame(dict(zip(("false_positive_rate", "true_positive_rate"), thinned(*rates(score, label)), strict=True)))


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
        raise InputError(f"The logger {who} does not work ({reason(error).rstrip('.')}); correct its settings, or train with logger=csv.") from error


@contextlib.contextmanager
def spared(who: str, folder: Path) -> Iterator[None]:
    """Tells of what goes wrong with a logger, and goes on."""
    try:
        yield
    except Exception as error:
        log.warning("%s did not take all results (%s); they lie in %s.", who, reason(error).rstrip("."), folder)


def close(folder: Path) -> None:
    """Ends what a logger holds open, also for a job that failed."""
    with spared("Weights & Biases", folder):
        wandb.close()
