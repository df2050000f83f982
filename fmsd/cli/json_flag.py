"""The option `--json`: the commands that have it."""

from collections.abc import Sequence

from fmsd.errors import InputError

JSON = "--json"

TABLE_VERBS = (
    "train", "evaluate", "merge", "extract", "index", "doctor", "roots", "report", "reproduce",
)  # fmt: skip
"""The verbs that print tables."""

SWEEP_FLAGS = ("-m", "--multirun", "hydra.mode=MULTIRUN")
"""Arguments that make a command a sweep."""

NO_JOB = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--shell-completion", "-sc")
"""Options of Hydra that print something instead of running the verb."""


def check_json(verb: str, arguments: Sequence[str]) -> None:
    """Refuses `--json` for a command that prints no table.

    Raises:
        InputError: the verb prints none, the command is a sweep of one that records no jobs, or
            an option of Hydra prevents the verb from running.
    """
    if verb not in TABLE_VERBS:
        raise InputError(
            f"fmsd {verb} prints no table, so it has no {JSON}",
            f"leave it out; these have it: {', '.join(TABLE_VERBS)}",
        )
    if any(argument in SWEEP_FLAGS for argument in arguments) and verb != "train":
        raise InputError(
            f"fmsd {verb} {JSON} shows the tables of one job, and -m runs several",
            "run each by a command of its own, or leave one of the two out",
        )
    keys = [argument.partition("=")[0] for argument in arguments]
    if other := [key for key in keys if key in NO_JOB]:
        raise InputError(
            f"{JSON} shows what fmsd {verb} prints when it runs, and {other[0]} keeps it from "
            "running",
            "leave one of them out",
        )
