"""The folder of a run: what is in it, how it is written, and what it says about where its numbers come from.

config.yaml        the composed configuration
run.json           provenance: command, versions, git revision, manifest digests, what chose the
weights, cost results.csv / .md  the result table, tidy and for reading validation.parquet the
chosen weights' predictions on the validation split spectra.json       singular values of some of
the matrices that learned, before and after corruptions.csv    of an evaluation with corrupt=: the
result table of every corruption and severity; robustness.png beside it predictions/
DATASET.parquet: a row per frame with its logit; CORRUPTION_SEVERITY/DATASET.parquet: the same of
corrupted frames adapter.*          the chosen weights: what the method changed in the backbone, and
the base it belongs to merge.json         of a merge: the recipe, hashes of the experts, their Gram
matrices, what was done to each layer; its pictures beside it domains.*          of a merge: AUC of
every specialist and of the merge on every forgery mask.json / .png   which layers were chosen to
learn, or when each artifact subspace learned, and why checkpoints/       best.ckpt and, to resume
from, last.ckpt and previous.ckpt: what learned and the optimizer's state logs/metrics.csv
training curves error.txt          of a job of a sweep that failed: the sentence or the traceback
that ended it wandb/ tensorboard/ mlflow/    what the loggers of these names keep; the jobs of a
sweep share one mlflow/ beside them mlflow.txt         the run's id in the store of MLflow
published.json     what each logger has taken of the run and its evaluations: stamps of datasets,
severities of robustness curves
"""

import contextlib
import datetime
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import subprocess
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import polars as pl

from fmsd.atomic import atomic
from fmsd.errors import BusyError, InputError, reason
from fmsd.metrics.table import markdown, markdown_text, videos, wide
from fmsd.names import check_name
from fmsd.quoting import shell_override
from fmsd.settings import parse_settings
from fmsd.tables import read_csv

if os.name == "posix":
    import fcntl

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).parents[1]
"""The folder of this package."""

REDIRECTIONS = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
)
"""Environment variables that point git at another repository, as it sets them itself around hooks."""

PACKAGES = (
    "fmsd",
    "torch",
    "lightning",
    "timm",
    "torchmetrics",
    "albumentations",
    "av",
    "hydra-core",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "polars",
)

CORRUPTIONS = "corruptions.csv"
"""The results of every corruption and severity."""

MASK = "mask.json"
"""The layer mask, or when which subspace learned."""

SPECTRA = "spectra.json"
"""Singular values of some of the matrices that learned, before and after."""

EXPLANATIONS = "explanations"
"""The folder of what `fmsd explain` drew."""

VALIDATION = "validation.parquet"
"""The predictions of the validation split."""

PUBLISHED = "published.json"
"""What each logger has taken of a run and its evaluations: the stamps of datasets, and the severities of robustness curves."""

MLFLOW = "mlflow.txt"
"""The id of the run in the store of MLflow."""

ERROR = "error.txt"
"""What ended a job of a sweep that failed."""

BUSY = 75
"""The exit code of a process that found another one at work on its run; other programs say by it, too, that one may try again later."""

PARTS = (
    "config.yaml",
    "run.json",
    "results.csv",
    "results.md",
    CORRUPTIONS,
    "robustness.png",
    "predictions",
    VALIDATION,
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
    "checkpoints",
    "logs",
    "wandb",
    "tensorboard",
    "mlflow",
    MLFLOW,
    PUBLISHED,
)
"""What a run may hold, by name."""


@dataclass(frozen=True)
class Run:
    """A run's folder."""

    folder: Path

    @property
    def config(self) -> Path:
        """The composed configuration."""
        return self.folder / "config.yaml"

    @property
    def finished(self) -> bool:
        """Whether it came to its end and was tested, or is a merge that there was nothing to test."""
        made = (self.folder / "run.json").is_file()
        return made and (
            (self.folder / "results.csv").is_file() or self.record().get("stamps") == {}
        )

    def record(self) -> dict[str, Any]:
        """What `run.json` says.

        Raises:
            InputError: the folder is not that of a trained run, or the file is damaged.
        """
        path = self.folder / "run.json"
        if not path.is_file():
            raise InputError(
                f"{self.folder} is not the folder of a trained run (it has no run.json)",
                "give the folder that training printed at its end",
            )
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(
                f"{path} is no JSON ({reason(error)})", "put it back, or test the run again"
            ) from error
        if not isinstance(record, dict):
            raise InputError(f"{path} is no JSON object", "put it back, or test the run again")
        return record

    def origin(self) -> dict[str, Any]:
        """What `run.json` says of the training, as far as tests can only be compared where they agree in it.

        Raises:
            InputError: a run of an older version, which did not say.
        """
        record = self.record()
        if "origin" not in record:
            raise InputError(
                f"{self.folder} is the run of an older version, which did not record what its "
                "numbers rest on",
                "train it anew",
            )
        return record["origin"]

    def results(self) -> pl.DataFrame:
        """The tidy result table."""
        return read_results(self.folder / "results.csv")

    def write(self, name: str, text: str) -> None:
        """Writes a text file of the run, atomically."""
        write(self.folder / name, text)

    def write_predictions(self, dataset: str, predictions: pl.DataFrame) -> None:
        """Writes the scored frames of one dataset, atomically."""
        self.write_table(f"predictions/{dataset}.parquet", predictions)

    def write_table(self, name: str, table: pl.DataFrame) -> None:
        """Writes a parquet file of the run, atomically."""
        with atomic(self.folder / name) as partial:
            table.write_parquet(partial)

    def write_results(self, results: pl.DataFrame) -> None:
        """Writes both result tables."""
        sizes = "; ".join(f"{markdown_text(name)} {text}" for name, text in videos(results).items())
        pages = (page(results, metric) for metric in results["metric"].unique(maintain_order=True))
        self.write("results.md", "\n".join((f"Test datasets: {sizes}.\n", *pages)))
        self.write(
            "results.csv", results.write_csv()
        )  # the last file: from here on the run is finished

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Writes `run.json`."""
        self.write("run.json", json.dumps(record, indent=2) + "\n")


def read_results(path: Path, also: Sequence[str] = ()) -> pl.DataFrame:
    """A tidy table of results; a stamp of digits alone is no number.

    Args:
        also: columns that it must have beside the usual.

    Raises:
        InputError: the file does not hold one.
    """
    try:
        table = read_csv(path, infer_schema=False)
        for name in table["dataset"].drop_nulls().unique():
            check_name(name, f"dataset in {path}")  # its predictions lie in a file of this name
        lacking = [
            name for name in ("n_videos", "n_real_videos") if name not in table.columns
        ]  # of an older version
        table = table.with_columns(pl.lit(None, pl.String).alias(name) for name in lacking)
        counts = [
            name
            for name in ("n_frames", "n_videos", "n_real_videos", "severity")
            if name in table.columns
        ]
        table = table.with_columns(pl.col("value").cast(pl.Float64), pl.col(counts).cast(pl.Int64))
        whole = (
            table.select("dataset", "level", "metric", "value", "n_frames", "selection", *also)
            .drop_nulls()
            .height
        )
    except pl.exceptions.PolarsError as error:
        raise InputError(
            f"{path} does not hold a run's results ({reason(error)})",
            "put it back, or test the run again",
        ) from error
    if not table.height or whole < table.height:
        raise InputError(
            f"{path} does not hold a run's results (it has {whole} whole rows of {table.height})",
            "put it back, or test the run again",
        )
    return table


def write(path: Path, text: str) -> None:
    """Writes a text file in one step: it is there whole or not at all."""
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")


def page(results: pl.DataFrame, metric: str) -> str:
    """One metric as a Markdown table: datasets as columns, frames and videos as rows."""
    table = wide(results, metric)
    rows = [[str(line[0]), *(f"{value:.4f}" for value in line[1:])] for line in table.rows()]
    return f"## {metric}\n\n" + markdown([*map(markdown_text, table.columns)], rows)


def provenance(command: Sequence[str]) -> dict[str, Any]:
    """Where numbers come from: the time, the command line, versions, the revision of this package's source and the machine."""
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": list(command),
        "versions": {name: _version(name) for name in PACKAGES}
        | {"python": platform.python_version()},
        "revision": revision(),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def _version(package: str) -> str | None:
    """The version of an installed package; that of this one is what the source says that runs, not another copy that is installed."""
    if package == "fmsd" and (own := _source_version(PACKAGE)) is not None:
        return own
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _source_version(package: Path) -> str | None:
    """The version in the `pyproject.toml` beside this package's source; None where the package is installed without it."""
    try:
        project = tomllib.loads(
            (package.parent / "pyproject.toml").read_text(encoding="utf-8")
        ).get("project", {})
    except (OSError, ValueError):
        return None
    return project.get("version") if project.get("name") == "fmsd" else None


def revision(package: Path = PACKAGE) -> str | None:
    """The git revision of this package's source, with `+changes` where the source or its configuration differs from it.

    None without git, and where the package does not lie in a checkout of itself: a repository
    around an installed package is another project's.
    """
    checkout = package.resolve().parent
    environment = {name: value for name, value in os.environ.items() if name not in REDIRECTIONS}
    # Git refuses a checkout that belongs to another user, as in a container. The code in this very
    # folder runs already.
    git = ["git", "--no-optional-locks", "-c", f"safe.directory={checkout}", "-C", str(checkout)]

    def ask(*arguments: str) -> str:
        return subprocess.run(
            [*git, *arguments], env=environment, capture_output=True, text=True, check=True
        ).stdout.removesuffix("\n")

    try:
        if Path(ask("rev-parse", "--show-toplevel")).resolve() != checkout:
            return None
        ask("ls-files", "--error-unmatch", f"{package.name}/__init__.py")
        head, changes = (
            ask("rev-parse", "HEAD"),
            ask("status", "--porcelain", "--", package.name, "conf"),
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+changes" if changes else "")


@contextlib.contextmanager
def claimed(
    run: Run, config: str, resumable: bool = False, named: str = "hydra.run.dir"
) -> Iterator[None]:
    """Makes a folder the run's own by writing its configuration first, and takes everything back when the work fails before the first checkpoint.

    Only what a run writes and what was not there before is removed. As long as the work lasts the
    configuration is locked; the lock goes with the process and its loader processes, however they
    end.

    Args:
        resumable: go on with an unfinished run of the same configuration.
        named: what names the folder on the command line.

    Raises:
        BusyError: another process is at work on the run.
        InputError: the folder holds a run that is finished or configured differently, or files that
            would be lost and belong to no run.
    """
    with held(run.config, patience=10 if resumable else 0) as file:
        if file is None:
            raise BusyError(
                f"Another process is at work on the run in {run.folder}",
                f"wait for it, or choose another folder with {named}=PATH",
            )
        file.seek(0)
        if (text := file.read()) and (not resumable or run.finished):
            raise InputError(
                f"{run.folder} already holds a run", f"choose another folder with {named}=PATH"
            )
        if text and (key := differing(text, config)):
            how = (
                f" (fmsd train {shell_override('resume', run.folder)} goes on with it as it is)"
                if (run.folder / "checkpoints").is_dir()
                else ""
            )
            raise InputError(
                f"{run.folder} already holds a run, unfinished and different from this one in "
                f"{key}",
                f"choose another folder with {named}=PATH, or remove it{how}",
            )
        before = {
            part
            for part in PARTS
            if os.path.lexists(run.folder / part) and (text or part != run.config.name)
        }
        if text:
            for partial in interrupted(run.folder):
                partial.unlink(missing_ok=True)
            (run.folder / ERROR).unlink(missing_ok=True)  # of the time before
        elif foreign := next(
            (part for part in PARTS if part in before and not _empty(run.folder / part)), None
        ):
            run.config.unlink()  # which was made to be locked
            raise InputError(
                f"{run.folder / foreign} belongs to no run and would be lost",
                f"choose another folder with {named}=PATH",
            )
        else:
            file.write(config)
            file.flush()
        try:
            yield
        except BaseException:
            if not any((run.folder / "checkpoints").glob("*.ckpt")):
                for path in (run.folder / part for part in PARTS if part not in before):
                    if path.is_dir():
                        shutil.rmtree(path)
                    else:
                        path.unlink(missing_ok=True)
            raise


def interrupted(folder: Path) -> list[Path]:
    """The files in a run's folder that a killed process was writing."""
    return [
        path
        for part in PARTS
        for path in (*folder.glob(f".{part}.*.partial"), *(folder / part).rglob(".*.partial"))
    ]


def _empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def part_of_run(path: Path) -> Path | None:
    """The folder of the run that a path is one of the own files of, or would be; None where it is of none."""
    place = path.parent.resolve() / path.name
    runs = (
        folder
        for folder in place.parents
        if any((folder / name).is_file() for name in ("config.yaml", "run.json"))
    )
    return next((folder for folder in runs if place.relative_to(folder).parts[0] in PARTS), None)


@contextlib.contextmanager
def held(path: Path, patience: float) -> Iterator[IO[str] | None]:
    """A file, made with its folder where there is none, that is locked as long as it is in use; None where another process holds it.

    Args:
        patience: seconds to wait for the lock: loader processes outlive a killed training by some.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open(
            "a+", encoding="utf-8", errors="replace"
        ) as file:  # it may be a file of somebody else's, in whatever encoding
            if not locked(file, patience):
                yield None
                return
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                try:
                    yield file
                finally:
                    unlock(file)
                return
            unlock(file)  # who held it has removed it meanwhile


def locked(file: IO[str], patience: float) -> bool:
    """Locks a file until it is closed; whether no other process holds it, if need be after some seconds of patience.

    Where there are no locks everyone is taken at their word.
    """
    if os.name != "posix":
        return True
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
        except OSError as error:
            log.debug("No lock on %s: %s", file.name, error)
            return True
        else:
            return True


def unlock(file: IO[str]) -> None:
    """Frees a file, also from the copies of its lock that forked processes keep, which closing it does not."""
    if os.name == "posix":
        with contextlib.suppress(OSError):  # no locks there
            fcntl.flock(file, fcntl.LOCK_UN)


def differing(one: str, two: str) -> str | None:
    """The first key in which two configurations differ; how they were asked for does not count. What is no configuration differs in all of them."""
    second = flat(parse_settings(two, "The configuration of this command"))
    try:
        first = flat(parse_settings(one, "The configuration that lies there"))
    except InputError:
        first = {}
    first, second = (
        {key: value for key, value in own.items() if not key.startswith("overrides")}
        for own in (first, second)
    )
    return next(
        (key for key in first | second if first.get(key, ...) != second.get(key, ...)), None
    )


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """A nested configuration as one level of dotted keys."""
    if not isinstance(node, dict) or not node:
        return {prefix.removesuffix("."): node}
    return {
        key: value
        for name, child in node.items()
        for key, value in flat(child, f"{prefix}{name}.").items()
    }


def prune(folder: Path) -> None:
    """Removes a folder, if it is empty, and what is then empty above it: up to the working directory, or the run of an evaluation."""
    path = folder
    while path != Path.cwd() and path.is_dir() and not any(path.iterdir()):
        try:
            path.rmdir()
        except OSError:  # somebody else's: a mount point, or filled in the meantime
            break
        if (
            path.name != "evaluations"
            and path.parent.name != "evaluations"
            and Path.cwd() not in path.parent.parents
        ):
            break
        path = path.parent


def caption(record: Mapping[str, Any]) -> str:
    """One line about a run: what was trained, or merged, at what cost."""
    if "merged" in record:
        return (
            f"merged from {', '.join(record['merged'])} without training in "
            f"{record['seconds']:.0f} s; coefficients: {record['selection']}"
        )
    return (
        f"{record['trainable']:,} of {record['parameters']:,} parameters trained "
        f"({record['trainable'] / record['parameters']:.2%}), "
        f"{record['seconds'] / 60:.1f} min, weights of epoch {record['epoch'] + 1} by "
        f"{record['selection']}"
    )
