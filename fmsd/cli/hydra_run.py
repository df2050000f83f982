"""Runs one verb through Hydra: its jobs, how they end, and the exit code."""

import contextlib
import errno
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import hydra
import omegaconf
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

import fmsd
from fmsd.cli.data_config import absolute_path
from fmsd.cli.file_words import FILE_VERBS
from fmsd.cli.hydra_compat import task_overrides
from fmsd.cli.interruption import SWEEP_REMEDY, report_interruption
from fmsd.cli.logs import configure_logging
from fmsd.cli.options import config_dirs
from fmsd.cli.outcome import JobOutcome, run_to_end
from fmsd.cli.recorded_config import redact_file, redact_hydra_files
from fmsd.cli.refusal import CONFIG_ERRORS, check_override_types, translate_hydra_error
from fmsd.cli.sweep import HYDRA_FILE, SWEEP
from fmsd.cli.sweep_jobs import JobNote, report_sweep, run_noted_job
from fmsd.cli.verbs import VERBS
from fmsd.data.spelling import encoding_fault, escape_non_utf8, is_utf8
from fmsd.errors import BusyError, InputError
from fmsd.json_output import code_of_exit, no_document, print_error
from fmsd.machine_errors import machine_error
from fmsd.package_files import CONF
from fmsd.plugins import check_own_files, plugins
from fmsd.redaction import redact_words
from fmsd.runs.folder import BUSY, remove_empty_folders
from fmsd.signals import begin, errors_as_interruption

log = logging.getLogger(__name__)

FULL_ERROR = "HYDRA_FULL_ERROR"
"""Hydra's variable that makes it raise errors; the user sets it to 1 to see tracebacks."""

SAFE_PATH = "PYTHONSAFEPATH"
"""Python's variable for processes that do not import from the working directory.

Those of launchers and of several devices begin with `python -m`, which does, and a user may work in
the downloaded folder of a run.
"""


class PluginFolders(SearchPathPlugin):
    """Makes Hydra search the configuration files of the installed plugins, after those of fmsd."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Adds their folders."""
        for plugin in plugins():
            search_path.append(provider=str(plugin), path=f"file://{plugin.conf}")


class JobError(Exception):
    """A sweep job ended with this exit code; raised, since launchers return nothing else."""


@dataclass
class Command:
    """A command line, and how its jobs ended as far as they ran in this process.

    Args:
        overrides: in Hydra's grammar.
        files: words that are files.
        existing: output folders that existed before; they stay even if they are empty.
        debug: whether refusals are raised with their traceback.
        started: whether a job began in this process.
        refusals: errors of the user's input.
        codes: exit codes of verbs that returned.
        outputs: folders and files that the last job writes to.
    """

    verb: str
    overrides: list[str]
    files: list[str]
    existing: set[Path]
    debug: bool
    started: bool = False
    refusals: list[InputError] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    outputs: list[Path] = field(default_factory=list)

    @property
    def line(self) -> list[str]:
        """The command as recorded in a run: the program with its verb, then the overrides."""
        return [f"fmsd {self.verb}", *self.overrides, *self.files]


def run(verb: str, overrides: Sequence[str], files: Sequence[str] = ()) -> int:
    """Runs a verb and returns the exit code, see `fmsd.cli.main.main`.

    Args:
        overrides: in Hydra's grammar.
        files: words that are files, of the verbs that take some. Hydra does not see them: it would
            parse ten thousand for minutes.
    """
    check_utf8([*overrides, *files])
    configure_logging(VERBS[verb].lightning)
    Plugins.instance().register(PluginFolders)
    for own in config_dirs(overrides):
        check_own_files(own)
    debug = os.environ.get(FULL_ERROR) == "1"
    command = Command(verb, list(overrides), list(files), existing_outputs(overrides), debug)

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name=verb)
    def job(config: DictConfig) -> float | None:
        return run_job(command, config)

    begin()
    with hydra_process_state([f"fmsd {verb}", *overrides]) as sweep_notes:
        code = run_hydra(job, command, sweep_notes)
        notes = sweep_notes()
    if notes:
        redact_file(notes.parent.parent / HYDRA_FILE)
    for refusal in command.refusals:
        print_error(refusal)
    failed = report_sweep(notes) if notes else 0
    busy = any(isinstance(refusal, BusyError) for refusal in command.refusals)
    refused = (BUSY if busy else 2) if command.refusals else 0
    return code or refused or failed or max(command.codes, default=0)


def check_utf8(overrides: Sequence[str]) -> None:
    """Checks that overrides, and the working folder of their relative paths, are UTF-8.

    A run writes them into its files, which are.

    Raises:
        InputError: one has other bytes.
    """
    for text in (*overrides, str(Path.cwd())):
        if not is_utf8(text):
            fault, remedy = encoding_fault(text, "rename the file or folder that it names")
            raise InputError(f"{escape_non_utf8(text)} is {fault}", remedy)


@contextlib.contextmanager
def hydra_process_state(line: Sequence[str]) -> Iterator[Callable[[], Path | None]]:
    """Sets the command line and the variables that Hydra reads, and restores them afterwards.

    Hydra has no arguments for them. `hydra.main` parses `sys.argv`. It prints errors and exits by
    itself unless HYDRA_FULL_ERROR is 1. It builds `fmsd.cli.sweep.Sweep` itself, too, and jobs run
    in processes of launchers: FMSD_SWEEP, which that callback sets, is all that reaches them.
    They get PYTHONSAFEPATH as well.

    Yields:
        A function that returns the notes folder of the sweep that began meanwhile, or None.
    """
    argv, around = sys.argv, {name: os.environ.get(name) for name in (FULL_ERROR, SWEEP, SAFE_PATH)}

    def sweep_notes() -> Path | None:
        notes = os.environ.get(SWEEP)
        return Path(notes) if notes and notes != around[SWEEP] else None

    sys.argv = list(line)
    os.environ[FULL_ERROR] = os.environ[SAFE_PATH] = "1"
    try:
        yield sweep_notes
    finally:
        sys.argv = argv
        for name, value in around.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def run_hydra(
    job: Callable[[], object], command: Command, sweep_notes: Callable[[], Path | None]
) -> int:
    """Runs all jobs of a command and appends its refusals to `command.refusals`.

    Returns:
        The exit code of what ended the command early, or 0.
    """
    try:
        with errors_as_interruption():
            job()
    except (InputError, OmegaConfBaseException, *CONFIG_ERRORS) as error:
        if command.debug:
            raise
        refusal = translate_hydra_error(error, command.verb, command.overrides)
        command.refusals.append(refusal)
    except JobError as error:
        return error.args[0]
    except KeyboardInterrupt as error:
        return report_interruption(error, "" if sweep_notes() is None else SWEEP_REMEDY)
    except SystemExit as end:
        code = code_of_exit(end)
        if code == 1 and "--package" in " ".join(command.overrides) and not command.started:
            message = "--package names no part of the configuration"
            command.refusals.append(InputError(message, "leave it out, or correct it"))
            return 0
        return code
    except Exception as error:
        refusal = machine_error(error, command.outputs) or output_error(error, command.outputs)
        if refusal is None and not command.started and is_of_hydra(error):
            refusal = translate_hydra_error(error, command.verb, command.overrides)
        if command.debug or (refusal is None and sweep_notes() is None):
            raise
        why = f"{type(error).__name__}, {' '.join(str(error).split())}"
        broken_off = InputError(
            f"The sweep broke off: {why}",
            "run the same command again: finished jobs are skipped",
        )
        command.refusals.append(refusal or broken_off)
    return 0


def is_of_hydra(error: BaseException) -> bool:
    """Whether Hydra or OmegaConf calls what raised an error, and not a function of this package."""
    files = [Path(step.filename) for step in traceback.extract_tb(error.__traceback__)]
    own = Path(fmsd.__file__).parent
    libraries = [Path(module.__file__ or "").parent for module in (hydra, omegaconf)]
    innermost = next(
        file for file in reversed(files) if any(map(file.is_relative_to, (own, *libraries)))
    )
    return not innermost.is_relative_to(own)


def run_job(command: Command, config: DictConfig) -> float | None:
    """Runs one job, in this process or in one that a launcher started.

    Returns:
        The value that chose the weights, for a sweeper that optimises it; None without one.
    """
    configure_logging(VERBS[command.verb].lightning)  # for the processes of launchers
    command.started = True
    settings = HydraConfig.get()
    folder, multirun = Path(settings.runtime.output_dir), settings.mode == RunMode.MULTIRUN
    first = os.environ.get("SLURM_PROCID", "0") == "0"  # of the processes of a SLURM job
    notes = os.environ.get(SWEEP)
    out = config.get("out")
    command.outputs = [folder, *([] if out is None else [Path(absolute_path(out))])]

    def work() -> JobOutcome:
        return run_to_end(
            lambda: run_verb(command, config, folder),
            command.verb,
            command.overrides,
            command.outputs,
        )

    try:
        if notes and multirun and first and not command.debug:
            note = JobNote(settings.job.num, redact_words(task_overrides()), str(folder))
            return run_noted_job(work, note, Path(notes))
        outcome = work()
        if notes:  # a process of a sweep's job, whose note the job itself writes
            outcome.write_error(folder)
    finally:
        if folder not in command.existing:
            remove_empty_folders(folder)  # Hydra creates it before the job starts
    end_job(command, outcome, multirun)
    return None


def run_verb(command: Command, config: DictConfig, folder: Path) -> int | None:
    """Checks the overrides of one job and runs the verb with its configuration."""
    settings = HydraConfig.get()
    redact_hydra_files(settings)
    sys.argv = redact_words(sys.argv)  # loggers record it
    check_override_types(command.verb, task_overrides(), config, settings.runtime.choices)
    single = settings.mode == RunMode.RUN
    with contextlib.nullcontext() if single else no_document():
        files = (command.files,) if command.verb in FILE_VERBS else ()
        return VERBS[command.verb].run(config, folder, redact_words(command.line), *files)


def end_job(command: Command, outcome: JobOutcome, multirun: bool) -> None:
    """Adds how a job ended to the command, or raises it.

    A launcher may run a job of a sweep elsewhere: only an error gets from there to the command.

    Raises:
        JobError: a job of a sweep returned another exit code than 0.
    """
    if outcome.error is None:
        if outcome.code and multirun:
            raise JobError(outcome.code)
        command.codes.append(outcome.code)
    elif outcome.refusal is None or command.debug or multirun:
        if outcome.refusal is not None and not command.debug:
            log.error("%s: %s", " ".join(task_overrides()), outcome.refusal)
        raise outcome.error
    else:
        command.refusals.append(outcome.refusal)


def existing_outputs(overrides: Sequence[str]) -> set[Path]:
    """The output folders named by an override that exist already: they are the user's own."""
    pairs = (override.partition("=") for override in overrides)
    folders = {
        Path(absolute_path(text.strip("'\"")))
        for key, _, text in pairs
        if key in ("hydra.run.dir", "out")
    }
    # os.path.isdir is False, too, for names that no folder can have
    return {folder for folder in folders if os.path.isdir(folder)}  # noqa: PTH112


OUTPUT_ERRORS = {
    errno.EEXIST: "is a file, where a folder is wanted",
    errno.ENOTDIR: "lies below a file, where a folder is wanted",
}
"""Why an output folder cannot be created, beside the reasons in `fmsd.machine_errors`."""


def output_error(error: Exception, outputs: Sequence[Path]) -> InputError | None:
    """The refusal for a verb's output that cannot be written; None for an error of another file.

    Args:
        outputs: folders and files that the verb writes to; empty if Hydra failed to create the
            first.
    """
    if (
        not isinstance(error, OSError)
        or error.errno not in OUTPUT_ERRORS
        or not isinstance(error.filename, str)
    ):
        return None
    path = Path(error.filename).absolute()
    if outputs and not any(
        path.is_relative_to(output) or output.is_relative_to(path) for output in outputs
    ):
        return None
    return InputError(
        f"{path} {OUTPUT_ERRORS[error.errno]}",
        "choose another place with hydra.run.dir=PATH, or out=PATH where the verb has it",
    )
