"""The option `--json`: the commands that have it."""

from collections.abc import Sequence

from fmsd.cli.options import OPTIONS, is_sweep, option_names, split_options
from fmsd.errors import InputError

JSON = "--json"

TABLE_VERBS = (
    "train", "evaluate", "predict", "export", "import", "score", "merge", "extract", "index",
    "doctor", "roots", "report", "verify", "push", "reproduce",
)  # fmt: skip
"""The verbs that print tables."""


def check_json(verb: str, arguments: Sequence[str]) -> None:
    """Refuses `--json` for a command that prints no table.

    Raises:
        InputError: the verb prints none, the command is a sweep of one that records no jobs, or
            an option of Hydra prevents the verb from running or cannot be given so.
    """
    if verb not in TABLE_VERBS:
        raise InputError(
            f"fmsd {verb} prints no table, so it has no {JSON}",
            f"leave it out; these have it: {', '.join(TABLE_VERBS)}",
        )
    if verb != "train" and is_sweep(arguments):
        raise InputError(
            f"fmsd {verb} {JSON} shows the tables of one job, and -m runs several",
            "run each by a command of its own, or leave one of the two out",
        )
    names = option_names(split_options(arguments)[0])
    if other := [name for name in names if OPTIONS[name].does == "print"]:
        raise InputError(
            f"{JSON} shows what fmsd {verb} prints when it runs, and {other[0]} keeps it from "
            "running",
            "leave one of them out",
        )
