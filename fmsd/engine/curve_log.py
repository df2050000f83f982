"""Training curves of a run as a CSV file, continued after an interruption."""

import itertools
import logging
import os
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger

from fmsd.atomic import atomic
from fmsd.engine.checkpoints import recovery_state
from fmsd.engine.lightning_compat import set_csv_columns
from fmsd.errors import reason

log = logging.getLogger(__name__)

CURVES_FILE = "logs/metrics.csv"
"""The training curves of a run, in its folder."""


def curve_logger(folder: Path, resumed: Path | None) -> CSVLogger:
    """The logger of a run's training curves.

    Args:
        resumed: the checkpoint that training goes on from; later lines of the file are dropped.
    """
    logger = CSVLogger(folder, name="logs", version="", flush_logs_every_n_steps=1)
    file = folder / CURVES_FILE
    if resumed is not None and file.exists():
        last = recovery_state(resumed)["step"]
        try:
            names, text = _curves_until(file.read_bytes().decode(), last)
        except (OSError, ValueError) as error:
            log.warning(
                "The training curves %s cannot be read (%s) and begin anew; the old ones now lie "
                "in %s.",
                file,
                reason(error),
                _put_aside(file),
            )
            return logger
        file.unlink()  # the logger would do so, with a warning
        set_csv_columns(logger, names)
        with atomic(file) as partial:
            partial.write_bytes(text.encode())
    return logger


def _curves_until(text: str, last: int) -> tuple[list[str], str]:
    """The columns of curves, and their text without the lines after a step.

    Raises:
        ValueError: the text is no table of curves.
    """
    header, *rows = text.splitlines(keepends=True) or ["step\n"]
    names = header.strip().split(",")
    if "step" not in names:
        raise ValueError("they have no column step")
    # a kill may have cut a line short
    whole = [row for row in rows if row.endswith("\n") and row.count(",") == len(names) - 1]
    step = names.index("step")
    kept = [row for row in whole if int(row.strip().split(",")[step]) <= last]
    return names, header + "".join(kept)


def _put_aside(file: Path) -> Path:
    """Moves a file or folder aside, to a name beside it that is free; returns that."""
    names = (file.with_name(f"{file.name}.damaged{number or ''}") for number in itertools.count())
    free = next(name for name in names if not os.path.lexists(name))
    return file.rename(free)
