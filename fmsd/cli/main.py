"""The command line: `fmsd VERB overrides...`; `python train.py ...` is `fmsd train ...`."""

import functools
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from fmsd.cli.files import CONF
from fmsd.cli.refusal import explained
from fmsd.cli.sweep import SWEEP, JobError
from fmsd.cli.verbs import VERBS, reproduce
from fmsd.errors import BusyError, InputError
from fmsd.report.run import BUSY, ERROR, prune, write
from fmsd.report.sweep import Note, attempt, summed_up

log = logging.getLogger(__name__)

USAGE = """fmsd VERB [overrides...]

  train      adapt a detector, choose its weights on validation data, test it on every test dataset
  train      resume=RUN    go on with a run that was interrupted
  evaluate   run=RUN [data=NAME ...]    test a run's weights, by default on its own test datasets
  evaluate   run=RUN corrupt=all [severities='[1,3,5]']    ... and how it stands up to corrupted images
  explain    run=RUN [data=NAME ...] [images=4]    heat maps over its test images, and how its features lie
  fold       run=RUN out=FILE.safetensors    a run's weights as a plain timm model
  merge      merger=NAME experts='[RUN_OR_FILE, ...]' out=RUN    specialists of one base as one run, without training
  merge      add=RUN to=MERGED out=RUN    a merge with one more specialist
  extract    data=NAME data.root=PATH out=FOLDER    videos or images as aligned face crops with a manifest
  index      data=NAME out=FILE.parquet    scan a dataset once and keep its manifest
  doctor     data=NAME [out=FILE.json]    what is wrong with a copy of a dataset, and which shortcuts it offers
  pack       data=NAME out=FOLDER [size=1G]    a dataset's images as a few large tars
  report     runs=FOLDER [by=domain] [out=FOLDER]    many runs as tables and one page, by test dataset or by forgery
  reproduce  NAME [seed=0,1,2] [overrides of its trainings...]    the commands behind a table of experiments/
  dashboard  entity=NAME [project=fmsd]    a view of all runs of a project on Weights & Biases

Overrides are Hydra's: group=choice, key=value, -m for a sweep over comma-separated values, --cfg job to see the result,
--config-dir=FOLDER for configuration files of your own. Example: fmsd train method=fmsd data=ff++ data.root=/data/ff++"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a verb and returns the exit code: 0 done, 1 done with failures that it told, 2 refused with one sentence, 130 interrupted.

    It is 75 where it was refused because another process is at work on the run.
    A sweep's is that of the first of its jobs that has another one than 0; the others run all the same.
    """
    verb, *overrides = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    overrides = [re.sub(r"^search=([^'\"]*=.*)$", r'search="\1"', word) for word in overrides]  # its commas are no sweep
    if verb in ("-h", "--help"):
        print(USAGE)
        return 0
    if verb == "reproduce":  # runs others, each with a configuration of its own
        speak()
        return reproduce(overrides, main)
    if verb not in VERBS:
        print(f"fmsd: there is no verb {verb!r}; choose one of {', '.join(VERBS)}, reproduce.", file=sys.stderr)
        return 2
    speak()
    before, around = os.environ.get("HYDRA_FULL_ERROR"), os.environ.get(SWEEP)
    debugging = before == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what happened instead of printing and exiting itself
    refusals: list[InputError] = []
    codes: list[int] = []

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name=verb)
    def job(config: DictConfig) -> float | None:
        speak()  # a launcher may have put the job into another process
        settings = HydraConfig.get()
        folder, multirun = Path(settings.runtime.output_dir), settings.mode == RunMode.MULTIRUN
        leading = os.environ.get("SLURM_PROCID", "0") == "0"  # of the several processes of a job on a cluster
        notes = os.environ.get(SWEEP)
        try:
            if notes and multirun and leading and not debugging:
                note = Note(settings.job.num, list(settings.overrides.task), str(folder))
                return attempt(functools.partial(plainly, verb, overrides, config, folder), note, Path(notes))
            code = VERBS[verb](config, folder) or 0
            if code and multirun:
                raise JobError(code)
            codes.append(code)
        except (InputError, OmegaConfBaseException) as error:
            refusal = explained(error, verb, overrides)
            if notes and not isinstance(refusal, BusyError):
                write(folder / ERROR, f"{refusal}\n")
            if debugging:
                raise
            if multirun:
                log.error("%s: %s", " ".join(settings.overrides.task), refusal)
                raise
            refusals.append(refusal)
        except Exception:
            if notes:
                write(folder / ERROR, traceback.format_exc())
            raise
        finally:
            prune(folder)  # Hydra makes it before we can look at anything

    sys.argv = [f"fmsd {verb}", *overrides]
    ended = 0
    try:
        job()
    except (InputError, HydraException, OmegaConfBaseException) as error:
        if debugging:
            raise
        refusals.append(explained(error, verb, overrides))
    except JobError as error:
        ended = error.args[0]
    except (FileExistsError, NotADirectoryError) as error:
        if debugging or error.filename is None:
            raise
        refusals.append(InputError(f"{error.filename} is a file, where a folder is wanted", "choose another with out=PATH or hydra.run.dir=PATH"))
    except KeyboardInterrupt:
        ended = 130
    except SystemExit as exit_:  # processes of its own have said why
        ended = exit_.code if isinstance(exit_.code, int) else 1
    except Exception as error:
        null = next((word for word in overrides if word.endswith("=null") and "Config group override" in str(error)), None)
        if debugging or (null is None and os.environ.get(SWEEP) == around):
            raise
        if null:
            refusals.append(InputError(f"{null} names no choice of its group", "leave it out, or name one"))
        else:
            why = f"{type(error).__name__}, {' '.join(str(error).split())}"
            refusals.append(InputError(f"The sweep broke off: {why}", "run the same command again: finished jobs are skipped"))
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


def speak() -> None:
    """Sets up what is logged: our own words, and of others only warnings that concern the user."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("fmsd").setLevel(logging.INFO)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning's own use of torch
    for chatty in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def plainly(verb: str, overrides: Sequence[str], config: DictConfig, folder: Path) -> int | None:
    """Does what a verb says.

    Raises:
        BusyError: another process is at work on it.
        InputError: it was refused, whoever refused it; its text is the sentence.
    """
    try:
        return VERBS[verb](config, folder)
    except BusyError:
        raise
    except (InputError, OmegaConfBaseException) as error:
        refusal = explained(error, verb, overrides)
        raise InputError(refusal.message, refusal.remedy) from error
