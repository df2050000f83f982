"""Publishing a run to its loggers: the configuration at the start, results at the end.

All loggers get the same values under the same names. Tables, figures and the adapter go to those
that can show them, see the modules of the trackers.

Lightning and the trackers are imported when there is a logger, not with this module.
"""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from fmsd.errors import InputError, reason
from fmsd.redaction import redact_settings
from fmsd.runs.configuration import flatten, read_configuration
from fmsd.runs.evaluations import EVALUATIONS, run_of_evaluation
from fmsd.runs.folder import Run
from fmsd.tracking.ledger import (
    Published,
    contents,
    missing_results,
    read_published,
    record_published,
    warn_of_other_stamps,
)
from fmsd.tracking.values import (
    Curves,
    cost_values,
    result_values,
    robustness_values,
    roc_tables,
    stamps_by_dataset,
)

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

log = logging.getLogger(__name__)

VARIANT = "variant"
"""Key of a logged configuration: runs that are averaged with one another have the same value."""

LoggerFactory = Callable[[Path], Any]
"""Builds the Lightning logger of the run in a folder."""


def build_loggers(factories: Mapping[str, LoggerFactory], folder: Path) -> dict[str, "Logger"]:
    """Builds the loggers of the run in a folder, by name."""
    loggers = {}
    for name, factory in factories.items():
        with check_logger(name):
            loggers[name] = factory(folder)
    return loggers


def log_configuration(loggers: Iterable["Logger"], folder: Path) -> None:
    """Logs the configuration of the run in a folder."""
    from lightning.pytorch.loggers import MLFlowLogger  # noqa: PLC0415  if there is a logger

    settings = redact_settings(read_configuration(folder))  # it may be older than redaction
    settings[VARIANT] = variant_name(settings)
    for logger in loggers:
        with check_logger(logger_title(logger)):
            if isinstance(logger, MLFlowLogger):
                from fmsd.tracking.mlflow import mlflow_names  # noqa: PLC0415

                logger.log_hyperparams(mlflow_names(flatten(settings)))
            else:
                logger.log_hyperparams(settings)


def variant_name(settings: Mapping[str, Any]) -> str:
    """The method, wrapper, backbone and data of a run, which seeds have in common.

    A selection other than iid and a protocol are added.

    Args:
        settings: the composed configuration.
    """
    choices = settings["choices"]
    parts = [choices.get(group) for group in ("method", "wrapper", "backbone", "data")]
    if settings.get("select", "iid") != "iid":
        parts.append(settings["select"])
    return ", ".join(str(part) for part in (*parts, choices.get("protocol")) if part is not None)


def publish_run(loggers: Mapping[str, "Logger"], run: Run) -> None:
    """Logs the results of a training and records which loggers received them.

    A failure is logged; the next evaluation tries again.
    """
    for name, logger in loggers.items():
        with log_failure(logger_title(logger), run.folder):
            record_published(run, name, _log_training(logger, run))


def publish_evaluation(factories: Mapping[str, LoggerFactory], run: Run, evaluation: Run) -> None:
    """Logs what an evaluation adds to a run: further test datasets, and corruptions.

    A logger without the run's own results gets these first. A log holds results of a dataset under
    one stamp: those of another stamp are left out with a warning.
    """
    if not factories:
        return
    from lightning.pytorch.loggers import WandbLogger  # noqa: PLC0415  if there is a logger

    try:
        known = read_published(run)
    except InputError as error:
        log.warning("The loggers get nothing of this evaluation: %s", error)
        return
    of_run = contents(None, {})
    if (run.folder / "results.csv").is_file():
        of_run = contents(run.results(), robustness_values(run))
    had = {name: known.get(name, of_run) for name in factories}
    results = evaluation.results()
    warn_of_other_stamps(
        [part["stamps"] for part in had.values()], stamps_by_dataset(results), evaluation.folder
    )
    for name, factory in factories.items():
        run_missing = bool(of_run["stamps"]) and name not in known
        new, curves = missing_results(had[name], results, evaluation)
        if not run_missing and new.is_empty() and not curves:
            continue
        with log_failure(f"logger={name}", evaluation.folder):
            logger = factory(run.folder)
            log_configuration([logger], run.folder)
            if run_missing:
                record_published(run, name, _log_training(logger, run))
            if not new.is_empty() or curves:
                log_results(logger, evaluation, new, curves, {}, run.record().get("steps") or 0)
            if isinstance(logger, WandbLogger):
                _close_wandb()  # it uploads the rest, which may fail
            record_published(run, name, contents(new, curves))
    close_loggers(evaluation.folder)


def _log_training(logger: "Logger", run: Run) -> Published:
    """Logs the results of a training; returns the ledger entry."""
    results, curves, record = run.results(), robustness_values(run), run.record()
    log_results(logger, run, results, curves, cost_values(record), record.get("steps") or 0)
    return contents(results, curves)


def log_results(
    logger: "Logger",
    run: Run,
    results: pl.DataFrame,
    curves: Curves,
    more: Mapping[str, float],
    step: int,
) -> None:
    """Logs results, robustness curves, and what the tracker can show besides.

    Args:
        run: a training, or an evaluation, whose files are logged under its name.
        more: further values.
        step: the optimizer step of the results.
    """
    from lightning.pytorch.loggers import (  # noqa: PLC0415  if there is a logger
        MLFlowLogger,
        TensorBoardLogger,
        WandbLogger,
    )

    stamps = stamps_by_dataset(results)
    prefix = artifact_folder(run) if "run" in run.record() else ""
    values = result_values(results) | dict(more)
    if isinstance(logger, WandbLogger):
        from fmsd.tracking import wandb  # noqa: PLC0415

        logger.log_metrics(values, step)
        wandb.log_artifacts(logger, run, stamps, roc_tables(run, set(stamps)), prefix)
        wandb.log_robustness(logger, curves)
    elif isinstance(logger, MLFlowLogger):
        from fmsd.tracking import mlflow  # noqa: PLC0415

        for point, named in ((step, values), *curves.items()):
            logger.log_metrics(mlflow.mlflow_names(named), point)
        mlflow.log_artifacts(logger, run, stamps, prefix)
    else:
        for point, named in ((step, values), *curves.items()):
            logger.log_metrics(dict(named), point)
        if isinstance(logger, TensorBoardLogger):
            from fmsd.tracking import tensorboard  # noqa: PLC0415

            tensorboard.log_artifacts(logger, run, stamps, prefix)
        logger.save()


def artifact_folder(evaluation: Run) -> str:
    """The name under which the files of an evaluation are logged, with a slash at its end.

    It is the evaluation's path within its run: those of a sweep are `DATE/NUMBER`.
    """
    above, name = run_of_evaluation(evaluation.folder), evaluation.folder.name
    if above is not None:
        name = evaluation.folder.absolute().relative_to(above / EVALUATIONS).as_posix()
    return f"{EVALUATIONS}/{name}/"


def logger_title(logger: "Logger") -> str:
    """The name of a logger's class without `Logger`."""
    return type(logger).__name__.removesuffix("Logger")


@contextlib.contextmanager
def check_logger(name: str) -> Iterator[None]:
    """Turns every error of a logger into an `InputError`, before training begins."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"The logger {name} does not work ({reason(error).rstrip('.')})",
            "correct its settings, or train with logger=csv",
        ) from error


@contextlib.contextmanager
def log_failure(name: str, folder: Path) -> Iterator[None]:
    """Logs an error of a logger as a warning and continues.

    Args:
        name: of the logger.
        folder: of the results.
    """
    try:
        yield
    except Exception as error:
        log.warning(
            "%s did not take all results (%s); they lie in %s.",
            name,
            reason(error).rstrip("."),
            folder,
        )


def close_loggers(folder: Path) -> None:
    """Closes what loggers keep open, also for a failed job."""
    with log_failure("Weights & Biases", folder):
        _close_wandb()


def _close_wandb() -> None:
    if "wandb" in sys.modules:  # else it was never used
        from fmsd.tracking import wandb  # noqa: PLC0415

        wandb.close()
