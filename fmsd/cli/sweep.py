"""A sweep and its folder: the values it goes through, and the earlier sweep that it continues."""

import json
import logging
import math
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from fmsd.cli.hydra_compat import task_overrides, values_by_key
from fmsd.errors import InputError
from fmsd.json_output import print_error
from fmsd.json_records import read_record
from fmsd.machine_errors import machine_error
from fmsd.quoting import hydra_quote
from fmsd.redaction import redact_setting, redact_settings
from fmsd.runs.folder import write_text

log = logging.getLogger(__name__)

SWEEP = "FMSD_SWEEP"
"""The environment variable with the folder of job notes, set for all jobs of a sweep."""

CONTENTS = "sweep.json"
"""The file of a sweep's folder with every key that was set and all its values."""

HYDRA_FILE = "multirun.yaml"
"""The file that Hydra itself writes into a sweep's folder."""

BEGUN = "begun"
"""The file of the job notes with the number of jobs and the earlier contents of `CONTENTS`."""


class Sweep(Callback):
    """Hydra's callback for the start of a sweep."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Chooses the sweep's folder and sets where its jobs note how they end.

        Raises:
            SystemExit: that failed; Hydra turns any other error into a warning and goes on.
        """
        try:
            start_sweep(config)
        except Exception as error:
            why = error if isinstance(error, InputError) else machine_error(error)
            if why is None:
                why = InputError(
                    f"{type(error).__name__}, {' '.join(str(error).split())}",
                    "open an issue with this command: that is a fault of fmsd",
                )
            print_error(InputError(f"The sweep cannot begin: {why.message}", why.remedy))
            raise SystemExit(2) from error


def start_sweep(config: DictConfig) -> None:
    """Continues a matching earlier sweep instead of a new dated folder, and sets FMSD_SWEEP."""
    values = sweep_values(config)
    plain = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    folder = Path(config.hydra.sweep.dir).absolute()
    if (
        isinstance(plain, dict)
        and "${now:" in str(plain["dir"])
        and (earlier := find_matching_sweep(folder.parent, values))
    ):
        folder = earlier
        log.info("This sweep goes on in %s; hydra.sweep.dir=FOLDER makes a new one.", folder)
    notes = folder / ".jobs" / uuid.uuid4().hex
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.sweep.dir = str(folder)
        config.hydra.overrides.hydra += [
            f"hydra.sweep.dir={hydra_quote(folder)}",
            f"+hydra.job.env_set.{SWEEP}={hydra_quote(notes)}",
        ]
    jobs = config.hydra.sweeper.get("n_trials") or math.prod(map(len, values.values()))
    begin_sweep(folder, notes, values, jobs)
    os.environ[SWEEP] = str(notes)


def sweep_values(config: DictConfig) -> dict[str, list[str]]:
    """Every key that a sweep sets, with its values or the distribution they are drawn from.

    Passwords and tokens are redacted: a sweep goes on with another one in their place.
    """
    params = config.hydra.sweeper.get("params") or {}
    of_sweeper = (f"{key}={value}" for key, value in params.items())
    values = values_by_key([*of_sweeper, *task_overrides(config.hydra.overrides.task)])
    return {key: redact_setting(key, of_key) for key, of_key in values.items()}


def begin_sweep(folder: Path, notes: Path, values: Mapping[str, Sequence[str]], jobs: int) -> None:
    """Adds a sweep's values to `CONTENTS`, and keeps the earlier ones in the notes for its end.

    Args:
        folder: the sweep's folder.
        notes: the folder of its job notes.
        values: every key that the sweep sets, with its values.
        jobs: number of jobs.

    Raises:
        InputError: `CONTENTS` cannot be read, or the folder holds another program's sweep.
    """
    if os.path.lexists(folder / HYDRA_FILE) and not (folder / CONTENTS).is_file():
        raise InputError(
            f"{folder / HYDRA_FILE} is of another sweep and would be lost",
            "choose another folder with hydra.sweep.dir=FOLDER",
        )
    known = read_contents(folder)
    write_text(notes / BEGUN, json.dumps({"jobs": jobs, "before": known}))
    joined = (
        {key: sorted({*known[key], *values[key]}) for key in values}
        if known.keys() == values.keys()
        else values
    )
    write_contents(folder, joined)


def write_contents(folder: Path, values: Mapping[str, Sequence[str]]) -> None:
    """Writes `CONTENTS`, atomically."""
    write_text(folder / CONTENTS, json.dumps(values, indent=2) + "\n")


def read_contents(folder: Path) -> dict[str, list[str]]:
    """Every key that an earlier sweep in this folder set, with its values; empty without one.

    Raises:
        InputError: `CONTENTS` cannot be read.
    """
    file = folder / CONTENTS
    remedy = (
        f"delete it (the jobs beside it stay, and are known again with hydra.sweep.dir={folder})"
    )
    known = read_record(file, dict[str, list[str]], remedy) if file.is_file() else {}
    return redact_settings(known)


def find_matching_sweep(parent: Path, values: Mapping[str, Sequence[str]]) -> Path | None:
    """The newest sweep below `parent` whose values are a superset or a subset of these.

    The newest sweep with the same keys that does not match is logged with the difference.

    Args:
        values: every key that the new sweep sets, with its values.
    """
    logged = False
    files = parent.glob(f"*/{CONTENTS}")
    for file in sorted(files, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            known = read_contents(file.parent)
        except InputError as error:
            log.warning("%s", error)
            continue
        if not values or known.keys() != values.keys():
            continue
        pairs = {key: ({*known[key]}, {*values[key]}) for key in values}
        if all(old <= new for old, new in pairs.values()) or all(
            new <= old for old, new in pairs.values()
        ):
            return file.parent
        if not logged:
            difference = " ".join(
                f"{key}={','.join(sorted(old))}" for key, (old, new) in pairs.items() if old != new
            )
            log.info(
                "The sweep in %s is another one, with %s; hydra.sweep.dir=FOLDER goes on in it "
                "all the same.",
                file.parent,
                difference,
            )
            logged = True
    return None
