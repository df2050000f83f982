"""Reading the predictions of a run: a row per expected frame with its logit."""

from pathlib import Path

import polars as pl

from fmsd.data.frame import DIGEST_COLUMNS, SCHEMA
from fmsd.errors import InputError
from fmsd.outcomes import OUTCOMES, SCORED
from fmsd.tables import read_table

PREDICTION_SCHEMA = pl.Schema(
    {name: SCHEMA[name] for name in DIGEST_COLUMNS} | {"logit": pl.Float32}
)
"""The columns of predictions: those of a manifest's digest, and the logit of each frame."""

OPTIONAL = pl.Schema({"content": pl.UInt64, "outcome": pl.String})
"""The digest of each frame's file, which predictions of fmsd 0.1.0 lack; and what became of each
frame, where not every frame has a score, see `fmsd.metrics.coverage`."""


def read_predictions(path: Path) -> pl.DataFrame:
    """Reads a file of predictions; the logit of a frame without a score is null.

    Raises:
        InputError: it is damaged, has no rows, or a logit, label, content or outcome that no test
            writes.
    """
    remedy = "put it back, or test the run again"
    table = read_table(path, PREDICTION_SCHEMA, remedy, complete=False, optional=OPTIONAL)
    scored = table
    if "outcome" in table.columns:
        if not table["outcome"].is_in(OUTCOMES).all():
            raise InputError(f"{path} is damaged: its column 'outcome' holds other words", remedy)
        scored = table.filter(outcome=SCORED)
        if table["logit"].count() > scored.height:
            raise InputError(f"{path} is damaged: frames without a score have one", remedy)
    for name in (*PREDICTION_SCHEMA, *OPTIONAL):
        # of a frame without a score, the content may be unknown, too
        rows = scored if name in ("logit", "content") else table
        if name in table.columns and rows[name].null_count():
            raise InputError(f"{path} is damaged: its column {name!r} lacks values", remedy)
    if not table.height:
        raise InputError(f"{path} is damaged: it has no rows", remedy)
    if not table["logit"].drop_nulls().is_finite().all():
        raise InputError(f"{path} is damaged: its column 'logit' holds NaN or infinity", remedy)
    if not table["label"].is_in([0, 1]).all():
        raise InputError(f"{path} is damaged: its column 'label' holds not only 0 and 1", remedy)
    return table
