"""The folder of a run: its files, and how they are read and written.

| file | content |
| --- | --- |
| `config.yaml` | the composed configuration |
| `run.json` | provenance: command, versions, revision, data digests, selection, cost; |
| | `files`: digests of the other files, see `fmsd.runs.integrity` |
| `results.csv`, `.md` | the result table, tidy and for reading |
| `verdicts.csv` | verdicts on test videos at the thresholds that validation data chose |
| `validation.parquet` | predictions of the chosen weights on the validation split |
| `validation_features.safetensors` | features of some frames of that split, to tell what is |
| | unusual, see `fmsd.runs.validation_features` |
| `training.parquet` | path, size and digest of every training and validation frame |
| `spectra.json` | singular values of some trained matrices, before and after |
| `corruptions.csv` | results per corruption and severity; `robustness.png` shows them |
| `predictions/` | `DATASET.parquet`, a row per frame with its logit |
| | `CORRUPTION_SEVERITY/DATASET.parquet`, the same of corrupted frames |
| `adapter.*` | the chosen weights: what the method changed in the backbone, and its base model |
| `mask.json`, `.png` | the selected layers, or when each artifact subspace was trained |
| `merge.json` | of a merge: recipe, hashes of the experts, Gram matrices, record per layer |
| `domains.*` | of a merge: AUC of every specialist and of the merge on every forgery |
| `explanations/` | figures of `fmsd explain` |
| `evaluations/` | folders of `fmsd evaluate`, each laid out as a run |
| `checkpoints/` | `best.ckpt`, and `last.ckpt` and `previous.ckpt` to resume from |
| `logs/metrics.csv` | training curves |
| `unmatched.csv` | of imported scores: rows of the file without a test frame |
| `missing.csv` | of imported scores: test frames, or videos, without a score |
| `label_disagreements.csv` | of imported scores: rows with another label than ours |
| `error.txt` | of a failed job of a sweep: its error |
| `wandb/`, `tensorboard/`, `mlflow/` | files of these loggers; a sweep shares one `mlflow/` |
| `mlflow.txt` | id of the run in the MLflow store |
| `published.json` | what each logger has received: stamps of datasets, severities of curves |
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from fmsd.atomic import atomic
from fmsd.errors import InputError, reason
from fmsd.hub_addresses import place_name
from fmsd.json_records import check_record, read_record
from fmsd.metrics import coverage
from fmsd.metrics.layout import (
    escape_markdown,
    format_coverage,
    format_video_counts,
    markdown_table,
    pivot_datasets,
)
from fmsd.names import check_name
from fmsd.runs.continuation import continuation
from fmsd.runs.integrity import check_digests, digest_files
from fmsd.runs.record import CompleteRecord, RunRecord
from fmsd.runs.validation_features import FEATURES
from fmsd.tables import read_csv

CHECKPOINTS = "checkpoints"
CORRUPTIONS = "corruptions.csv"
MASK = "mask.json"
SPECTRA = "spectra.json"
EXPLANATIONS = "explanations"
VALIDATION = "validation.parquet"
VERDICTS = "verdicts.csv"
TRAINING = "training.parquet"
PUBLISHED = "published.json"
MLFLOW = "mlflow.txt"
ERROR = "error.txt"
UNMATCHED = "unmatched.csv"
MISSING = "missing.csv"
DISAGREEMENTS = "label_disagreements.csv"

BUSY = 75
"""Exit code if another process is at work on the run: EX_TEMPFAIL, try again later."""

PARTS = (
    "config.yaml",
    "run.json",
    "results.csv",
    "results.md",
    VERDICTS,
    CORRUPTIONS,
    "robustness.png",
    "predictions",
    VALIDATION,
    FEATURES,
    TRAINING,
    SPECTRA,
    EXPLANATIONS,
    "adapter.safetensors",
    "adapter.json",
    MASK,
    "mask.png",
    "merge.json",
    "norms.png",
    "cosines.png",
    "spectrum.png",
    "domains.csv",
    "domains.png",
    CHECKPOINTS,
    "logs",
    "wandb",
    "tensorboard",
    "mlflow",
    MLFLOW,
    PUBLISHED,
    UNMATCHED,
    MISSING,
    DISAGREEMENTS,
)
"""Names of the files and folders that a run owns, which a failure at its beginning removes.

`error.txt`, which a sweep writes after a job has failed, and `evaluations/` are not among them.
"""

COUNTS = (
    *("n_frames", "n_videos", "n_real_videos", "severity", "overlap"),
    *coverage.COUNTS,
)
"""Columns of result tables that hold whole numbers; not every table has all."""


@dataclass(frozen=True)
class Run:
    """A run's folder."""

    folder: Path

    @property
    def name(self) -> str:
        """How a record names the run: by its path, or by its address on the Hub."""
        return place_name(self.folder)

    @property
    def config(self) -> Path:
        """The path of the composed configuration."""
        return self.folder / "config.yaml"

    @property
    def finished(self) -> bool:
        """Whether the run is complete: tested, or a merge without test datasets.

        While its files are written, its record has null for their digests.
        """
        if not (self.folder / "run.json").is_file():
            return False
        record = self.record()
        tested = (self.folder / "results.csv").is_file() or record.get("stamps") == {}
        return tested and record.get("files", {}) is not None

    def record(self, complete: bool = False) -> dict[str, Any]:
        """The content of `run.json`.

        Args:
            complete: also check that it has the keys that every verb about a run needs.

        Raises:
            InputError: the folder does not exist, is that of an unfinished training or not that
                of a run, or the file is damaged; or, of a complete record, the run has no weights.
        """
        path = self.folder / "run.json"
        if not path.is_file():
            if not self.folder.exists():
                raise InputError(f"{self.folder} does not exist", "correct the path of the run")
            if self.config.is_file():
                raise InputError(
                    f"The run in {self.folder} is not finished (it has no run.json yet)",
                    continuation(self.folder),
                )
            raise InputError(
                f"{self.folder} is not the folder of a trained run (it has no run.json)",
                "give the folder that training printed at its end",
            )
        remedy = "put it back, or make the run anew"
        record = read_record(path, RunRecord, remedy)
        if complete:
            check_weights(self.folder, record)
            check_record(record, CompleteRecord, path, remedy)
        return record

    def origin(self) -> dict[str, Any]:
        """The facts of the training that enter the protocol stamp of every later test."""
        return self.record(complete=True)["origin"]

    def check(self, *names: str, optional: Mapping[str, str] | None = None) -> None:
        """Checks that files are what the record says; a run without digests is not checked.

        Args:
            names: of the files, relative to the folder.
            optional: names of further files that may be missing, and what a warning then says.

        Raises:
            InputError: a file was changed, removed or added after the run had ended.
        """
        if (self.folder / "run.json").is_file():
            check_digests(self.folder, self.record(), names, optional)

    def results(self) -> pl.DataFrame:
        """The tidy result table.

        Raises:
            InputError: it is not what the record says, or no table of results.
        """
        self.check("results.csv")
        return read_results(self.folder / "results.csv", ("n_real_videos",))

    def write(self, name: str, text: str) -> None:
        """Writes a text file of the run, atomically."""
        write_text(self.folder / name, text)

    def write_predictions(self, dataset: str, predictions: pl.DataFrame) -> None:
        """Writes the predictions on one dataset, a row per frame, atomically."""
        self.write_table(f"predictions/{dataset}.parquet", predictions)

    def write_table(self, name: str, table: pl.DataFrame) -> None:
        """Writes a parquet file of the run, atomically."""
        with atomic(self.folder / name) as partial:
            table.write_parquet(partial)

    def write_results(self, results: pl.DataFrame) -> None:
        """Writes `results.md` and `results.csv`; the latter marks the run as tested."""
        sizes = "; ".join(
            f"{escape_markdown(name)} {text}" for name, text in format_video_counts(results).items()
        )
        metrics = results["metric"].unique(maintain_order=True)
        tables = (metric_markdown(results, metric) for metric in metrics)
        partial = "; ".join(map(escape_markdown, format_coverage(results)))
        about = (
            f"Test datasets: {sizes}.\n",
            *([f"Without a score: {partial}.\n"] * bool(partial)),
        )
        self.write("results.md", "\n".join((*about, *tables)))
        self.write("results.csv", results.write_csv())

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Writes `run.json` of a run whose files are not all there yet: without their digests."""
        self.write("run.json", json.dumps({**record, "files": None}, indent=2) + "\n")

    def finish(self, record: Mapping[str, Any]) -> None:
        """Writes `run.json` with the digests of all files, which marks the run as finished."""
        whole = {**record, "files": digest_files(self.folder)}
        self.write("run.json", json.dumps(whole, indent=2) + "\n")


def check_weights(folder: Path, record: Mapping[str, Any]) -> None:
    """Refuses a run without weights: that of `fmsd score`, or of imported scores.

    Args:
        record: content of its `run.json`.

    Raises:
        InputError: it is one.
    """
    if "external" not in record:
        return
    again = (
        "scores other data with the same detector"
        if record["external"].get("kind") == "detector"
        else "is for its detector's code, fmsd import weights= for its weights"
    )
    raise InputError(
        f"{folder} holds the scores of an external detector and no weights, so it can only be "
        "reported, verified and cited",
        f"give a run with weights; fmsd score {again}",
    )


def read_results(path: Path, also: Sequence[str] = ()) -> pl.DataFrame:
    """Reads a tidy table of results.

    All other columns than counts and values are text: a stamp of digits alone is no number.

    Args:
        also: further columns that must be present and complete.

    Raises:
        InputError: the file is no table of results, or has incomplete rows.
    """
    try:
        table = read_csv(path, infer_schema=False)
        for name in table["dataset"].drop_nulls().unique():
            check_name(name, f"dataset in {path}")  # it names the file of predictions
        counts = [name for name in COUNTS if name in table.columns]
        table = table.with_columns(pl.col("value").cast(pl.Float64), pl.col(counts).cast(pl.Int64))
        required = ("dataset", "level", "metric", "value", "n_frames", "n_videos", "selection")
        complete = table.select(*required, *also).drop_nulls().height
    except pl.exceptions.PolarsError as error:
        raise InputError(
            f"{path} does not hold a run's results ({reason(error)})",
            "put it back, or test the run again",
        ) from error
    if not table.height or complete < table.height:
        raise InputError(
            f"{path} does not hold a run's results ({complete} of its {table.height} rows are "
            "complete)",
            "put it back, or test the run again",
        )
    return table


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically: complete or not at all."""
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")


def metric_markdown(results: pl.DataFrame, metric: str) -> str:
    """One metric as a Markdown table: datasets as columns, frames and videos as rows."""
    table = pivot_datasets(results, metric)
    rows = [[str(line[0]), *(f"{value:.4f}" for value in line[1:])] for line in table.rows()]
    return f"## {metric}\n\n" + markdown_table([*map(escape_markdown, table.columns)], rows)


def owning_run(path: Path) -> Path | None:
    """The folder of the run that a path is a part of, or would be; None if there is none."""
    place = path.parent.resolve() / path.name
    runs = (
        folder
        for folder in place.parents
        if any((folder / name).is_file() for name in ("config.yaml", "run.json"))
    )
    return next((folder for folder in runs if place.relative_to(folder).parts[0] in PARTS), None)


def remove_empty_folders(folder: Path) -> None:
    """Removes a folder if it is empty, and the parents that become empty by that.

    Stops at the working directory; for an evaluation, at the folder of its run.
    """
    path = folder
    while path != Path.cwd() and path.is_dir() and not any(path.iterdir()):
        try:
            path.rmdir()
        except OSError:  # a mount point, or filled by another process in the meantime
            break
        if (
            path.name != "evaluations"
            and path.parent.name != "evaluations"
            and Path.cwd() not in path.parent.parents
        ):
            break
        path = path.parent
