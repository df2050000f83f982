"""Sweeps: their folder, the notes of their jobs, and the values that they go through."""

import logging
import math
import os
import sys
import uuid
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from fmsd.cli.sweep_notes import begin, kindred
from fmsd.errors import InputError
from fmsd.quoting import quote

log = logging.getLogger(__name__)

SWEEP = "FMSD_SWEEP"
"""The environment variable that tells the jobs of a sweep, and the processes they start, the folder of notes on how they end."""


class JobError(Exception):
    """How a job of a sweep ended that was not refused, by its exit code: errors are what every launcher brings back from other processes."""


class Sweep(Callback):
    """What Hydra calls where a sweep begins."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Takes the folder of an earlier sweep with the same jobs, where a dated one would be made, and tells the jobs where to note how they end.

        Raises:
            SystemExit: that failed; of any other error Hydra makes a warning, and the sweep would
                run on without notes.
        """
        try:
            self.begin(config)
        except Exception as error:
            why = (
                str(error)
                if isinstance(error, InputError)
                else f"{type(error).__name__}, {' '.join(str(error).split())}"
            )
            print(f"fmsd: The sweep cannot begin: {why}", file=sys.stderr)
            raise SystemExit(2) from error

    def begin(self, config: DictConfig) -> None:
        """Does so."""
        asked, plain = values(config), OmegaConf.to_container(config.hydra.sweep, resolve=False)
        folder = Path(config.hydra.sweep.dir).absolute()
        if (
            isinstance(plain, dict)
            and "${now:" in str(plain["dir"])
            and (earlier := kindred(folder.parent, asked))
        ):
            folder = earlier
            log.info("This sweep goes on in %s; hydra.sweep.dir=FOLDER makes a new one.", folder)
        notes = folder / ".jobs" / uuid.uuid4().hex
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.sweep.dir = str(folder)
            config.hydra.overrides.hydra += [
                f"hydra.sweep.dir={quote(folder)}",
                f"+hydra.job.env_set.{SWEEP}={quote(notes)}",
            ]
        begin(
            folder,
            notes,
            asked,
            config.hydra.sweeper.get("n_trials") or math.prod(map(len, asked.values())),
        )
        os.environ[SWEEP] = str(notes)


def values(config: DictConfig) -> dict[str, list[str]]:
    """Every key that a sweep sets, with its values, or with what a sweeper draws them from."""
    words = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    parsed = OverridesParser.create(GlobalHydra.instance().config_loader()).parse_overrides(
        [*words, *config.hydra.overrides.task]
    )
    return {one.get_key_element(): listed(one) for one in parsed}


def listed(override: Override) -> list[str]:
    """The values that an override gives its key in a sweep; of an interval its text."""
    if override.is_discrete_sweep():
        return sorted(override.sweep_string_iterator())
    return [
        (override.input_line or "").partition("=")[2]
        if override.is_sweep_override()
        else override.get_value_element_as_str()
    ]
