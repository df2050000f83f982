"""Reading the predictions of a run: a row per frame with its logit."""

from pathlib import Path

import polars as pl

from fmsd.data.frame import DIGEST_COLUMNS, SCHEMA
from fmsd.errors import InputError
from fmsd.tables import read_table

PREDICTION_SCHEMA = pl.Schema(
    {name: SCHEMA[name] for name in DIGEST_COLUMNS} | {"logit": pl.Float32}
)
"""The columns of predictions: those of a manifest's digest, and the logit of each frame."""

CONTENT = pl.Schema({"content": pl.UInt64})
"""The digest of each frame's file, which predictions of fmsd 0.1.0 lack."""


def read_predictions(path: Path) -> pl.DataFrame:
    """Reads a file of predictions.

    Raises:
        InputError: it is damaged, has no rows, or a logit, label or content that no test writes.
    """
    remedy = "put it back, or test the run again"
    table = read_table(path, PREDICTION_SCHEMA, remedy, optional=CONTENT)
    if not table.height:
        raise InputError(f"{path} is damaged: it has no rows", remedy)
    if not table["logit"].is_finite().all():
        raise InputError(f"{path} is damaged: its column 'logit' holds NaN or infinity", remedy)
    if not table["label"].is_in([0, 1]).all():
        raise InputError(f"{path} is damaged: its column 'label' holds not only 0 and 1", remedy)
    return table
