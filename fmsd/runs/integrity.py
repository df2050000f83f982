"""The digests that bind a run's files to its record, and the files compared with them.

`run.json` holds them under `files`. They are written last: the record of a run that was interrupted
or killed has none, and such a run is not verified.
"""

import hashlib
import logging
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from fmsd.errors import InputError
from fmsd.hub_addresses import address_of
from fmsd.paths import file_digest

log = logging.getLogger(__name__)

DETECTOR_FILES = ("config.yaml", "adapter.safetensors", "adapter.json")
"""The files that the detector of a run is made from."""

TOP = (
    *DETECTOR_FILES,
    "mask.json",
    "spectra.json",
    "merge.json",
    "validation.parquet",
    "validation_features.safetensors",
    "training.parquet",
    "results.csv",
    "verdicts.csv",
    "corruptions.csv",
    "domains.csv",
)
"""The files with digests in the folder of a run itself."""

PREDICTIONS = re.compile(r"predictions/([^./\\\0][^/\\\0]*/)?[^./\\\0][^/\\\0]*\.parquet")
"""The names of the others: predictions on a dataset, clean or under a corruption."""

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class State(StrEnum):
    """What a file of a run is, compared with the record of the run."""

    GOOD = "good"
    CHANGED = "changed"
    MISSING = "missing"
    ADDED = "added"
    NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class File:
    """A file of a run beside its digest in the record.

    Args:
        name: relative to the folder of the run.
        recorded, found: the digests in the record and of the file; None without one.
    """

    name: str
    state: State
    recorded: str | None = None
    found: str | None = None


def file_names(folder: Path) -> list[str]:
    """The names of the existing files of a run that have a digest in the record of a whole run."""
    tables = (
        path.relative_to(folder).as_posix()
        for pattern in ("*.parquet", "*/*.parquet")
        for path in sorted((folder / "predictions").glob(pattern))
    )
    return [
        name for name in (*TOP, *filter(PREDICTIONS.fullmatch, tables)) if (folder / name).is_file()
    ]


def digest_files(folder: Path) -> dict[str, str]:
    """The digests of the files of a run by name, as its record keeps them."""
    return {name: _digest(folder / name) for name in file_names(folder)}


def _digest(path: Path) -> str:
    return f"sha256:{file_digest(path)}"


def bytes_digest(content: bytes) -> str:
    """The digest of the content of a file, as records keep it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def recorded_digests(folder: Path, record: Mapping[str, Any]) -> dict[str, str] | None:
    """The digests in the record of a run by name of the file; None if the record has none.

    Raises:
        InputError: they are no digests, or of files that are none of a run's.
    """
    files = record.get("files")
    if files is None:
        return None
    known = isinstance(files, dict) and all(
        isinstance(text, str)
        and DIGEST.fullmatch(text)
        and (name in TOP or PREDICTIONS.fullmatch(name))
        for name, text in files.items()
    )
    if not known:
        raise InputError(
            f"{folder / 'run.json'} does not hold the digests of a run's files under 'files'",
            _remedy(folder, record),
        )
    return files


def compare(folder: Path, record: Mapping[str, Any], names: Iterable[str]) -> list[File]:
    """Compares files with the record of their run; leaves out names without digest and file.

    Raises:
        InputError: see `recorded_digests`.
    """
    recorded = recorded_digests(folder, record)
    files = []
    for name in names:
        exists, before = (folder / name).is_file(), (recorded or {}).get(name)
        if recorded is None and exists:
            files.append(File(name, State.NOT_RECORDED))
        elif before is not None and not exists:
            files.append(File(name, State.MISSING, before))
        elif before is not None:
            now = _digest(folder / name)
            files.append(File(name, State.GOOD if now == before else State.CHANGED, before, now))
        elif exists:
            files.append(File(name, State.ADDED))
    return files


def refusal(folder: Path, record: Mapping[str, Any], file: File) -> InputError | None:
    """Why a file cannot be used; None if it can, or if nothing is known of it."""
    path, remedy = folder / file.name, _remedy(folder, record)
    if file.state == State.MISSING:
        return InputError(f"{path} is missing, and the run.json of this run names it", remedy)
    if file.state == State.ADDED:
        return InputError(
            f"{path} was added after the run had ended: its run.json does not name it",
            "remove it" if address_of(folder) is None else remedy,
        )
    if file.state == State.CHANGED:
        before, now = (
            f"{text}".removeprefix("sha256:")[:12] for text in (file.recorded, file.found)
        )
        return InputError(
            f"{path} is not the file that the run wrote (its SHA-256 begins with {now}, in "
            f"run.json with {before})",
            remedy,
        )
    return None


def tested_weights(folder: Path, record: Mapping[str, Any]) -> str:
    """The digest of the weights of a run, for the record of an evaluation."""
    name = "adapter.safetensors"
    return (recorded_digests(folder, record) or {}).get(name) or _digest(folder / name)


def has_other_weights(
    folder: Path, record: Mapping[str, Any], evaluation: Mapping[str, Any]
) -> bool:
    """Whether an evaluation tested other weights than those that its run has now.

    Args:
        folder, record: of the run.
        evaluation: the record of the evaluation.
    """
    now = (recorded_digests(folder, record) or {}).get("adapter.safetensors")
    tested = evaluation.get("weights")
    return None not in (now, tested) and now != tested


def check_digests(
    folder: Path,
    record: Mapping[str, Any],
    names: Iterable[str],
    optional: Mapping[str, str] | None = None,
) -> None:
    """Checks that files of a run are what its record says; does nothing if it has no digests.

    Args:
        record: the content of its `run.json`.
        names: of the files, relative to the folder.
        optional: names of further files that may be missing, and what a warning then says.

    Raises:
        InputError: a file was changed, removed or added after the run had ended.
    """
    optional = optional or {}
    if record.get("files") is None:
        return
    for file in compare(folder, record, [*names, *optional]):
        if file.state == State.MISSING and file.name in optional:
            log.warning("%s is missing: %s.", folder / file.name, optional[file.name])
        elif fault := refusal(folder, record, file):
            raise fault


def _remedy(folder: Path, record: Mapping[str, Any]) -> str:
    """What to do about a file that is not what the run wrote."""
    if address_of(folder) is not None:
        return f"remove {folder} to fetch it again, or ask the owner of the repository"
    return f"put it back from a copy, or {_again(record)}"


def _again(record: Mapping[str, Any]) -> str:
    """How the files of a run are made again, as a clause."""
    if "run" in record:
        return "test its run again with fmsd evaluate"
    if "external" in record:
        verb = "score" if record["external"].get("kind") == "detector" else "import the scores"
        return f"{verb} again in another folder"
    verb = "merge" if "merged" in record else "import" if "imported" in record else "train"
    return f"{verb} again in another folder"


def damaged_entry(checkpoint: Path) -> str | None:
    """The first part of a checkpoint whose bytes do not have their checksum; None if all have it.

    torch writes a zip archive with checksums, and does not compare them when it reads one.

    Raises:
        zipfile.BadZipFile: it is no archive.
    """
    with zipfile.ZipFile(checkpoint) as archive:
        return archive.testzip()
