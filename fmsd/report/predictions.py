"""Reading the predictions that results were computed from."""

from pathlib import Path

import polars as pl

from fmsd.data.frame import SCHEMA
from fmsd.errors import InputError, reason
from fmsd.tables import read_parquet


def read_predictions(path: Path) -> pl.DataFrame:
    """Reads a file of predictions: the columns of a manifest and `logit`, a row per frame.

    Raises:
        InputError: the file is gone, holds something else, or a logit that is not finite.
    """
    if not path.is_file():
        raise InputError(
            f"{path} is gone, and with it the predictions behind the results",
            "put it back, or test the run again with fmsd evaluate",
        )
    try:
        frames = read_parquet(path, columns=[*SCHEMA.names(), "logit"])
        finite = frames["logit"].is_finite().fill_null(value=False).all()
    except pl.exceptions.PolarsError as error:
        raise InputError(
            f"{path} does not hold a run's predictions ({reason(error)})",
            "put them back, or test the run again",
        ) from error
    if not frames.height or not finite:
        raise InputError(
            f"{path} does not hold a finite logit of each frame",
            "put them back, or test the run again",
        )
    return frames
