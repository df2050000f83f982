"""The output folder of an extraction: its settings, its work folder, and its write errors."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from fmsd.atomic import NO_ROOM, atomic
from fmsd.data import pack, prepared_folder
from fmsd.data.extraction.recipe import Recipe
from fmsd.errors import InputError
from fmsd.machine_errors import machine_error, shared_memory_error
from fmsd.ownership import path_below

SETTINGS_FILE = "extract.json"
"""The settings of the crops in a folder; beside the manifest it marks the folder as trainable."""


def write_settings(out: Path, settings: dict[str, Any]) -> None:
    """Writes the settings of an extraction into its folder, or compares them with those in it.

    Raises:
        InputError: the folder's crops have other settings or are packed, it holds something else,
            or it cannot be written.
    """
    if (out / pack.MARK).is_file():
        raise InputError(
            f"{out} holds a pack, whose manifest would be lost", "choose another out=FOLDER"
        )
    before = prepared_folder.crop_settings(out)
    if before is not None:
        # a setting that is not recorded had its default
        unrecorded = {"mask": None, "conversion": settings.get("conversion")}
        before = asdict(Recipe()) | unrecorded | before
        for name, value in (settings | {"mask": settings.get("mask")}).items():
            if before.get(name) != value:
                raise InputError(
                    f"The crops in {out} were made with {name}={before.get(name)}, not {value}",
                    "choose another out=FOLDER",
                )
        return
    try:
        used = out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir())
        if used and not (out / SETTINGS_FILE).is_file():  # another shard may have begun meanwhile
            raise InputError(
                f"{out} holds something else", "choose an empty or new folder as out=FOLDER"
            )
        with atomic(out / SETTINGS_FILE) as partial:
            partial.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise crops_output_error(out, error) from error


@contextlib.contextmanager
def claim_work_folder(out: Path, name: str, lock: Callable[[IO[str]], bool]) -> Iterator[Path]:
    """A folder below `out` for files being written, exclusive to this process while in use.

    Files that a killed process left there are removed.

    Args:
        name: of the videos that are extracted; one process at a time may claim it.
        lock: locks an open file for this process; False where another process holds it.

    Raises:
        InputError: another process extracts the same videos, or a link leads out of `out`.
    """
    place = path_below(out, f".work/{name}")
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("a+", encoding="utf-8") as file:
        if not lock(file):
            raise InputError(
                f"Another process is extracting {name} into {out}",
                "wait for it, or choose another out=FOLDER",
            )
        for left in place.iterdir():
            if left.is_dir():
                shutil.rmtree(left)
        try:
            yield place
        finally:
            shutil.rmtree(place)
            with contextlib.suppress(OSError):  # not empty while other shards are at work
                place.parent.rmdir()


def crops_output_error(out: Path, error: OSError) -> InputError:
    """The error for the user where crops cannot be written, or the processes cannot start."""
    if shared := shared_memory_error(error):
        return shared
    full = error.errno in NO_ROOM
    if error.filename is None and not full:  # raised by starting the processes
        return machine_error(error) or InputError(
            f"The extraction into {out} broke off ({error.strerror or error})",
            "run the same command again",
        )
    if full:
        return InputError(
            f"There is no space left in {out}",
            "make room and run the same command again: it resumes where it stopped",
        )
    return InputError(
        f"{error.filename or out} cannot be written ({error.strerror or error})",
        "choose another out=FOLDER",
    )
