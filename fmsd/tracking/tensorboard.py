"""The TensorBoard log of a run: its logger, and tables and figures at its end."""

import importlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image

from fmsd.errors import InputError
from fmsd.runs.folder import Run


def build_tensorboard_logger(folder: Path) -> TensorBoardLogger:
    """Builds a logger that writes into `tensorboard/` in the run's folder.

    Raises:
        InputError: TensorBoard is not installed.
    """
    try:
        importlib.import_module("tensorboard")
    except ImportError as error:
        raise InputError(
            "logger=tensorboard needs the package tensorboard",
            "install it with: pip install 'fmsd[tensorboard]'",
        ) from error
    return TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False)


def log_artifacts(
    logger: TensorBoardLogger, run: Run, stamps: Mapping[str, Mapping[str, str]], prefix: str
) -> None:
    """Logs the result table, the stamps and the figures of a run.

    Args:
        stamps: by dataset and level.
        prefix: prefix of all names.
    """
    board = logger.experiment
    board.add_text(f"{prefix}results", (run.folder / "results.md").read_text(encoding="utf-8"))
    board.add_text(f"{prefix}stamps", f"```\n{json.dumps(stamps, indent=2)}\n```")
    for path in sorted(run.folder.glob("*.png")):
        with Image.open(path) as image:
            board.add_image(
                f"{prefix}{path.stem}", np.asarray(image.convert("RGB")), dataformats="HWC"
            )
    logger.save()
