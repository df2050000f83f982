"""The MLflow log of a run: its logger, and artifacts at its end."""

import contextlib
import importlib
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from lightning.pytorch.loggers import MLFlowLogger

from fmsd.errors import InputError
from fmsd.lock import try_lock
from fmsd.runs import configuration
from fmsd.runs.folder import MLFLOW, Run, write_text

log = logging.getLogger(__name__)

Value = TypeVar("Value")

PATIENCE = 60
"""Seconds that a job waits for other jobs of its sweep: SQLite allows one writer at a time."""

CLIENT_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # else it reports its use over the network
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # by default 7, minutes at a server that is away
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",  # seconds, by default 120, for each of them
}
"""Environment variables of MLflow's client where the user has set none."""


def build_mlflow_logger(
    folder: Path, project: str = "fmsd", uri: str | None = None
) -> MLFlowLogger:
    """Builds a logger with tags for method, data, backbone, wrapper, folder and sweep.

    A run that is in the store already continues under its id.

    Args:
        folder: of the run.
        project: name of the experiment.
        uri: address of the store; None for the SQLite file `mlflow/mlflow.db` in the folder of the
            sweep, shared by its jobs, or else of the run.

    Raises:
        InputError: MLflow is not installed.
    """
    for name, value in CLIENT_SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        for package in ("mlflow", *(("sqlalchemy", "alembic") if uri is None else ())):
            importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f"logger=mlflow needs the package {error.name}",
            "install it with: pip install 'fmsd[mlflow]'",
        ) from error
    from mlflow.exceptions import MlflowException  # noqa: PLC0415  of an extra
    from mlflow.tracking import MlflowClient  # noqa: PLC0415

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    sweep = configuration.sweep_folder(folder)
    address = uri or prepare_local_store((sweep or folder).absolute() / "mlflow", project)
    tags = {**configuration.choice_tags(folder), "folder": str(folder)}
    if sweep:
        tags["group"] = sweep.name
    known = None
    if (folder / MLFLOW).is_file():
        with contextlib.suppress(MlflowException):  # another store than before
            known = (
                MlflowClient(address)
                .get_run((folder / MLFLOW).read_text(encoding="utf-8").strip())
                .info.run_id
            )
    logger = MLFlowLogger(project, folder.name, address, tags, run_id=known)
    if known is None and logger.run_id:  # reading it creates the run
        write_text(folder / MLFLOW, f"{logger.run_id}\n")
    return logger


def prepare_local_store(store: Path, project: str) -> str:
    """Creates a store on disk with a project, unless they exist; returns its address.

    Jobs of a sweep do so one at a time.

    Raises:
        InputError: other jobs keep it locked for too long.
    """
    import sqlalchemy  # noqa: PLC0415  of an extra
    from mlflow.tracking import MlflowClient  # noqa: PLC0415

    store.mkdir(parents=True, exist_ok=True)
    address = str(
        sqlalchemy.URL.create(
            "sqlite", database=str(store / "mlflow.db"), query={"timeout": str(PATIENCE)}
        )
    )
    with (store / ".lock").open("a", encoding="utf-8") as file:
        if not try_lock(file, PATIENCE):
            raise InputError(
                f"{store} has been locked by another process for {PATIENCE} s",
                "end it, or name another store with logger.mlflow.uri=URI",
            )
        client = MlflowClient(address)
        if client.get_experiment_by_name(project) is None:
            client.create_experiment(project, artifact_location=(store / "artifacts").as_uri())
    return address


def foreign_artifact_uri(logger: MLFlowLogger) -> str | None:
    """The artifact folder of a local store if it is not beside the store; else None.

    The store itself defines its artifact folder, and a shared run may contain any store.
    """
    import sqlalchemy  # noqa: PLC0415  of an extra

    address = str(logger._tracking_uri)
    if not (
        address.startswith("sqlite") and address.endswith(f"timeout={PATIENCE}")
    ):  # a store that the user named
        return None
    store = Path(str(sqlalchemy.make_url(address).database)).parent
    place = str(logger.experiment.get_run(str(logger.run_id)).info.artifact_uri)
    inside = place.startswith(f"{(store / 'artifacts').as_uri()}/") and ".." not in place
    return None if inside else place


def mlflow_name(name: str) -> str:
    """A name that MLflow accepts: `p` for `+` (`ffpp` for `ff++`), `_` for other characters."""
    return re.sub(r"[^\w/. :-]", "_", name.replace("+", "p"), flags=re.ASCII)


def mlflow_names(values: Mapping[str, Value]) -> dict[str, Value]:
    """The values with their names as MLflow accepts them."""
    return {mlflow_name(name): value for name, value in values.items()}


def log_artifacts(
    logger: MLFlowLogger, run: Run, stamps: Mapping[str, Mapping[str, str]], prefix: str
) -> None:
    """Logs stamps as tags, and figures, tables and the adapter as artifacts.

    Args:
        stamps: by dataset and level.
        prefix: folder of the artifacts.
    """
    client = logger.experiment
    for dataset, levels in stamps.items():
        for level, stamp in levels.items():
            client.set_tag(logger.run_id, mlflow_name(f"stamp/{dataset}/{level}"), stamp)
    if elsewhere := foreign_artifact_uri(logger):
        log.warning(
            "MLflow's store would write artifacts to %s, which is outside of the store: "
            "only values are logged.",
            elsewhere,
        )
        return
    for pattern in ("*.png", "*.csv", "run.json", "adapter.*"):
        for path in sorted(run.folder.glob(pattern)):
            client.log_artifact(logger.run_id, str(path), prefix.rstrip("/") or None)
