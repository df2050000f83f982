"""Training curves of a run as a CSV file, continued after an interruption."""

from pathlib import Path

from lightning.pytorch.loggers import CSVLogger

from fmsd.atomic import atomic
from fmsd.engine.checkpoints import recovery_state
from fmsd.engine.lightning_compat import set_csv_columns

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
        header, *rows = file.read_bytes().decode().splitlines(keepends=True) or ["step\n"]
        last, names = recovery_state(resumed)["step"], header.strip().split(",")
        # a kill may have cut a line short
        whole = [row for row in rows if row.endswith("\n") and row.count(",") == len(names) - 1]
        step = names.index("step")
        kept = [row for row in whole if int(row.strip().split(",")[step]) <= last]
        file.unlink()  # the logger would do so, with a warning
        set_csv_columns(logger, names)
        with atomic(file) as partial:
            partial.write_bytes((header + "".join(kept)).encode())
    return logger
