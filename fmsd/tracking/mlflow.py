"""The MLflow log of a run: curves while it trains; numbers, tables, pictures and the adapter at its end."""

import contextlib
import importlib
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path

from lightning.pytorch.loggers import MLFlowLogger

from fmsd.errors import InputError
from fmsd.runs import configuration
from fmsd.runs.folder import MLFLOW, Run, write_text
from fmsd.runs.lock import try_lock

log = logging.getLogger(__name__)

PATIENCE = 60
"""Seconds that a job waits for the others of its sweep to have written: an SQLite file has one writer at a time."""


def build_mlflow_logger(
    folder: Path, project: str = "fmsd", uri: str | None = None
) -> MLFlowLogger:
    """A logger whose tags are the run's method, data, backbone and wrapper, its folder and its sweep; a run that it has goes on under its id.

    Args:
        project: the name of the experiment.
        uri: of the store; None for the SQLite file `mlflow/mlflow.db` in the folder of the sweep,
            which its jobs share, else of the run.

    Raises:
        InputError: MLflow is not installed.
    """
    os.environ.setdefault(
        "MLFLOW_DISABLE_TELEMETRY", "true"
    )  # else it reports its use over the network
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
    tags, known = (
        {**configuration.choice_tags(folder), "folder": str(folder)}
        | ({"group": sweep.name} if sweep else {}),
        None,
    )
    if (folder / MLFLOW).is_file():
        with contextlib.suppress(MlflowException):  # another store than before
            known = (
                MlflowClient(address)
                .get_run((folder / MLFLOW).read_text(encoding="utf-8").strip())
                .info.run_id
            )
    made = MLFlowLogger(project, folder.name, address, tags, run_id=known)
    if known is None and made.run_id:  # which makes the run
        write_text(folder / MLFLOW, f"{made.run_id}\n")
    return made


def prepare_local_store(store: Path, project: str) -> str:
    """The address of a store on disk that has a project; what of it is not there is made, by one job at a time.

    Raises:
        InputError: other jobs do not come to an end with it.
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
    """Where a store in a run's folder has its artifacts, if that is not beside it: the store itself says where, and may be a stranger's."""
    import sqlalchemy  # noqa: PLC0415  of an extra

    address = str(logger._tracking_uri)
    if not (
        address.startswith("sqlite") and address.endswith(f"timeout={PATIENCE}")
    ):  # a store that the user named
        return None
    store = Path(str(sqlalchemy.make_url(address).database)).parent
    place = str(logger.experiment.get_run(str(logger.run_id)).info.artifact_uri)
    return (
        None
        if place.startswith(f"{(store / 'artifacts').as_uri()}/") and ".." not in place
        else place
    )


def mlflow_name(name: str) -> str:
    """A name as MLflow takes it: it knows no `+`, so `ff++` is `ffpp`, its other name here; whatever else it refuses is `_`."""
    return re.sub(r"[^\w/. :-]", "_", name.replace("+", "p"), flags=re.ASCII)


def log_artifacts(
    logger: MLFlowLogger, run: Run, stamps: Mapping[str, Mapping[str, str]], place: str
) -> None:
    """Writes the stamp of every dataset and level as tags; pictures, tables and the adapter as artifacts.

    Args:
        place: the folder of these.
    """
    board = logger.experiment
    for dataset, own in stamps.items():
        for level, stamp in own.items():
            board.set_tag(logger.run_id, mlflow_name(f"stamp/{dataset}/{level}"), stamp)
    if elsewhere := foreign_artifact_uri(logger):
        log.warning(
            "MLflow's store would write artifacts to %s, where it was made or says it was: it "
            "gets the numbers alone.",
            elsewhere,
        )
        return
    for pattern in ("*.png", "*.csv", "run.json", "adapter.*"):
        for path in sorted(run.folder.glob(pattern)):
            board.log_artifact(logger.run_id, str(path), place.rstrip("/") or None)
