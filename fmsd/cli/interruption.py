"""How an interrupted command ends: with one sentence and the exit code of its signal."""

from fmsd.errors import InputError
from fmsd.json_output import is_first_process, print_error
from fmsd.signals import interruption, silent

SWEEP_REMEDY = "run the same command again: finished jobs are skipped"


def report_interruption(error: BaseException, remedy: str = "") -> int:
    """Prints what interrupted a command and how to go on, once for all its processes.

    Args:
        error: the `KeyboardInterrupt` that ended it.
        remedy: how to go on; empty for that of the error.

    Returns:
        The exit code.
    """
    ending = interruption(error, remedy)
    if is_first_process() and not silent():
        print_error(InputError(ending.cause, ending.remedy))
    return ending.code
