"""The content of a run's training and validation frames, by which a test recognises them."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from fmsd.data.content import CONTENT_SCHEMA
from fmsd.data.content_files import read_contents
from fmsd.data.manifest import Manifest
from fmsd.runs.folder import TRAINING, Run
from fmsd.tables import read_table


def record_training_frames(run: Run, frames: Manifest) -> pl.DataFrame:
    """Reads every training and validation frame once, and writes their content into the run.

    Raises:
        InputError: a frame cannot be read.
    """
    contents = read_contents(frames)
    run.write_table(TRAINING, contents)
    return contents


def join_training_frames(run: Run, experts: Sequence[Path]) -> pl.DataFrame | None:
    """The content of the training frames of all experts, also written into the run of their merge.

    Args:
        experts: folders of runs, or files of weights, whose training frames are unknown.

    Returns:
        None where those of an expert are unknown; nothing is written then.
    """
    contents = training_frames([Run(path) for path in experts])
    if contents is not None:
        contents = contents.unique(maintain_order=True)
        run.write_table(TRAINING, contents)
    return contents


def training_frames(runs: Sequence[Run]) -> pl.DataFrame | None:
    """The content of the training and validation frames of all runs; None if one has no record.

    Raises:
        InputError: a record is damaged.
    """
    paths = [run.folder / TRAINING for run in runs]
    if not paths or not all(path.is_file() for path in paths):
        return None
    remedy = "put it back; if it is removed, no test can look for training frames"
    tables = [read_table(path, CONTENT_SCHEMA, remedy) for path in paths]
    return pl.concat(table.select(CONTENT_SCHEMA.names()) for table in tables)
