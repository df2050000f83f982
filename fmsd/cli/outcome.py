"""How a job ends: its exit code, and the error that ended it."""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf.errors import OmegaConfBaseException

from fmsd.cli.refusal import translate_hydra_error
from fmsd.errors import BusyError, InputError
from fmsd.machine_errors import machine_error
from fmsd.redaction import redact_message
from fmsd.runs.folder import BUSY, ERROR, write_text
from fmsd.signals import errors_as_interruption


@dataclass(frozen=True)
class JobOutcome:
    """How a job ended.

    Args:
        code: the exit code.
        error: the error that ended it; None if it ended by itself.
        refusal: that error for the user; None if neither the user's input nor the machine is the
            cause.
    """

    code: int
    error: Exception | None = None
    refusal: InputError | None = None

    def write_error(self, folder: Path) -> None:
        """Writes the error into the job's folder, unless another process is at work on the job."""
        if self.error is None or isinstance(self.refusal, BusyError):
            return
        report = "".join(traceback.format_exception(self.error))
        write_text(folder / ERROR, redact_message(f"{self.refusal}\n" if self.refusal else report))


def run_to_end(
    work: Callable[[], int | None],
    verb: str,
    overrides: Sequence[str],
    outputs: Sequence[Path] = (),
) -> JobOutcome:
    """Runs a job and catches its error.

    Args:
        work: the job; it returns the exit code, or None for 0.
        verb: the verb and its overrides, for the messages.
        outputs: files and folders that the job writes.

    Raises:
        KeyboardInterrupt: a signal came.
    """
    try:
        with errors_as_interruption():
            return JobOutcome(work() or 0)
    except (InputError, OmegaConfBaseException) as error:
        refusal = translate_hydra_error(error, verb, overrides)
        return JobOutcome(BUSY if isinstance(refusal, BusyError) else 2, error, refusal)
    except Exception as error:
        refusal = machine_error(error, outputs)
        return JobOutcome(2 if refusal else 1, error, refusal)
