"""One verb as Hydra runs it: its jobs, how they end, and the exit code."""

import errno
import functools
import importlib
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from fmsd.cli.compose import located
from fmsd.cli.files import CONF
from fmsd.cli.refusal import UNREADABLE, check_kinds, translate_hydra_error
from fmsd.cli.sweep import SWEEP, JobError
from fmsd.cli.sweep_notes import Note, attempt, summed_up
from fmsd.cli.verbs import VERBS
from fmsd.errors import BusyError, InputError
from fmsd.runs.folder import BUSY, ERROR, remove_empty_folders, write_text
from fmsd.surroundings import refused_by_machine

log = logging.getLogger(__name__)


def run(verb: str, overrides: Sequence[str]) -> int:
    """Runs a verb and returns the exit code, see `fmsd.cli.main.main`.

    Args:
        overrides: as Hydra reads them.
    """
    configure_logging(verb)
    standing = existing(overrides)
    before, around = os.environ.get("HYDRA_FULL_ERROR"), os.environ.get(SWEEP)
    debugging = before == "1"
    os.environ["HYDRA_FULL_ERROR"] = (
        "1"  # Hydra then raises what happened instead of printing and exiting itself
    )
    refusals: list[InputError] = []
    codes: list[int] = []
    outputs: list[Path] = []

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name=verb)
    def job(config: DictConfig) -> float | None:
        configure_logging(verb)  # a launcher may have put the job into another process
        settings = HydraConfig.get()
        folder, multirun = Path(settings.runtime.output_dir), settings.mode == RunMode.MULTIRUN
        leading = (
            os.environ.get("SLURM_PROCID", "0") == "0"
        )  # of the several processes of a job on a cluster
        notes = os.environ.get(SWEEP)
        outputs[:] = [
            folder,
            *([] if config.get("out") is None else [Path(config.out).expanduser().absolute()]),
        ]
        try:
            if notes and multirun and leading and not debugging:
                note = Note(settings.job.num, list(settings.overrides.task), str(folder))
                return attempt(
                    functools.partial(refusing, verb, overrides, config, folder), note, Path(notes)
                )
            code = execute(verb, config, folder) or 0
            if code and multirun:
                raise JobError(code)
            codes.append(code)
        except (InputError, OmegaConfBaseException) as error:
            refusal = translate_hydra_error(error, verb, overrides)
            if notes and not isinstance(refusal, BusyError):
                write_text(folder / ERROR, f"{refusal}\n")
            if debugging:
                raise
            if multirun:
                log.error("%s: %s", " ".join(settings.overrides.task), refusal)
                raise
            refusals.append(refusal)
        except Exception:
            if notes:
                write_text(folder / ERROR, traceback.format_exc())
            raise
        finally:
            if folder not in standing:
                remove_empty_folders(folder)  # Hydra makes it before we can look at anything

    sys.argv = [f"fmsd {verb}", *overrides]
    ended = 0
    try:
        job()
    except (InputError, OmegaConfBaseException, *UNREADABLE) as error:
        if debugging:
            raise
        refusals.append(translate_hydra_error(error, verb, overrides))
    except JobError as error:
        ended = error.args[0]
    except KeyboardInterrupt:
        print("fmsd: interrupted.", file=sys.stderr)
        ended = 130
    except SystemExit as exit_:  # processes of its own have said why
        ended = exit_.code if isinstance(exit_.code, int) else 1
    except Exception as error:
        if debugging:
            raise
        refusal = refused_by_machine(error) or unwritable(error, outputs)
        if refusal is None and os.environ.get(SWEEP) == around:
            raise
        why = f"{type(error).__name__}, {' '.join(str(error).split())}"
        refusals.append(
            refusal
            or InputError(
                f"The sweep broke off: {why}",
                "run the same command again: finished jobs are skipped",
            )
        )
    finally:
        os.environ["HYDRA_FULL_ERROR"] = before or "0"
        notes = os.environ.pop(SWEEP, None)
        if around is not None:
            os.environ[SWEEP] = around
    for refusal in refusals:
        print(f"fmsd: {refusal}", file=sys.stderr)
    swept = summed_up(Path(notes)) if notes and notes != around else 0
    refused = BUSY if any(isinstance(refusal, BusyError) for refusal in refusals) else 2
    return ended or swept or (refused if refusals else max(codes, default=0))


def execute(verb: str, config: DictConfig, folder: Path) -> int | None:
    """Runs a verb with the configuration of one job.

    Raises:
        InputError: a word stands where the configuration has a number, or the verb refuses.
    """
    settings = HydraConfig.get()
    check_kinds(verb, settings.overrides.task, config, settings.runtime.choices)
    return VERBS[verb](config, folder)


def existing(overrides: Sequence[str]) -> set[Path]:
    """The folders of output that an override names and that are there already: the user's own, which stay even if they are empty."""
    words = (word.partition("=") for word in overrides)
    folders = {
        Path(located(text.strip("'\"")))
        for key, _, text in words
        if key in ("hydra.run.dir", "out")
    }
    return {folder for folder in folders if os.path.isdir(folder)}  # noqa: PTH112  False, too, for names that no folder can have


UNWRITABLE = {
    errno.EEXIST: "is a file, where a folder is wanted",
    errno.ENOTDIR: "lies below a file, where a folder is wanted",
    errno.ENAMETOOLONG: "has a name that is too long for the file system",
}
"""Why a folder of output cannot be made, beside what `fmsd.surroundings` knows."""


def unwritable(error: Exception, outputs: Sequence[Path]) -> InputError | None:
    """What keeps a verb from writing its output; None for an error of another file.

    Args:
        outputs: folders and files that the verb writes to; none where Hydra failed to make the
            first.
    """
    if (
        not isinstance(error, OSError)
        or error.errno not in UNWRITABLE
        or not isinstance(error.filename, str)
    ):
        return None
    place = Path(error.filename).absolute()
    if outputs and not any(
        place.is_relative_to(output) or output.is_relative_to(place) for output in outputs
    ):
        return None
    return InputError(
        f"{place} {UNWRITABLE[error.errno]}",
        "choose another place with hydra.run.dir=PATH, or out=PATH where the verb has it",
    )


QUIET = ("report", "dashboard")
"""Verbs that need no Lightning."""


def configure_logging(verb: str) -> None:
    """Logs fmsd at INFO and other libraries at WARNING."""
    if verb not in QUIET:
        importlib.import_module(
            "lightning.pytorch"
        )  # which sets levels of its own when it is imported
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("fmsd").setLevel(logging.INFO)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning's own use of torch
    for chatty in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def refusing(verb: str, overrides: Sequence[str], config: DictConfig, folder: Path) -> int | None:
    """Runs a verb whose refusals are all input errors, those of Hydra and OmegaConf too.

    Raises:
        InputError: it was refused; a BusyError where another process is at work on the run.
    """
    try:
        return execute(verb, config, folder)
    except (InputError, OmegaConfBaseException) as error:
        raise translate_hydra_error(error, verb, overrides) from error
    except Exception as error:
        if refusal := refused_by_machine(error):
            raise refusal from error
        raise
