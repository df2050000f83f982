"""The content of a run's training and validation frames, by which a test recognises them."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from fmsd.data.content import CONTENT_SCHEMA
from fmsd.data.content_files import read_contents
from fmsd.data.manifest import Manifest
from fmsd.errors import InputError
from fmsd.runs.folder import TRAINING, Run
from fmsd.tables import read_table


def unchanged_training_frames(run: Run, frames: Manifest) -> pl.DataFrame | None:
    """The content of the frames of a training that goes on; None if the run has no record of it.

    Args:
        frames: the training and validation frames.

    Raises:
        InputError: the files are not those that the run recorded when it began.
    """
    before = training_frames([run])
    if before is None:
        return None
    now = read_contents(frames)
    changed = now.join(before, on=CONTENT_SCHEMA.names(), how="anti", maintain_order="left")
    if changed.height:
        raise InputError(
            f"{changed.height} of the {now.height} training and validation files of {run.folder} "
            f"are not those that it began with, {changed['path'][0]} for one",
            "put them back, or train anew in another folder",
        )
    return before


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
    return pl.concat(
        read_table(path, CONTENT_SCHEMA, remedy).select(CONTENT_SCHEMA.names()) for path in paths
    )
