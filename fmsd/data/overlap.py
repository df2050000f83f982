"""Overlap: frames of a test dataset that are training or validation frames, by their content."""

import logging
from collections.abc import Mapping

import polars as pl

from fmsd.checks import check_choice
from fmsd.data.content_files import file_states, read_digests
from fmsd.data.manifest import Manifest
from fmsd.errors import InputError

log = logging.getLogger(__name__)

REFUSE, ALLOW, SKIP = "refuse", "allow", "skip"
"""Values of `overlap=`: what happens to a test on training frames; `skip` does not look for any."""

Overlap = Mapping[str, int | None]
"""The number of training frames in each test dataset; None where it is not known."""


def check_overlap(overlap: str) -> None:
    """Checks the value of `overlap=`."""
    check_choice("overlap", overlap, (REFUSE, ALLOW, SKIP))


def count_overlap(
    tests: Mapping[str, Manifest], training: pl.DataFrame | None, overlap: str
) -> dict[str, int | None]:
    """The number of training and validation frames in each test dataset.

    Args:
        training: the content of these frames, see `fmsd.data.content_files.read_contents`; None
            where it is not known.
        overlap: `refuse`, or `allow` to go on with a warning, or `skip` to read and count nothing.

    Raises:
        InputError: a test dataset holds such frames, and this is not allowed.
    """
    if training is None or overlap == SKIP:
        why = "overlap=skip" if overlap == SKIP else "the training has no record of its frames"
        if tests:
            log.info("Whether test frames are training frames is not known: %s.", why)
        return dict.fromkeys(tests)
    counts = {}
    for name, manifest in tests.items():
        shared = shared_frames(manifest, training)
        counts[name] = shared.height
        if not shared.height:
            continue
        test, trained = shared.select("path", "path_trained").row(0)
        same = "" if test == trained else f" ({trained} in training)"
        what = (
            f"{shared.height} of the {len(manifest)} test frames of {name} are training or "
            f"validation frames of the run, {test}{same} for one"
        )
        if overlap == REFUSE:
            raise InputError(
                what, "test on other frames; overlap=allow tests them all the same, and marks it"
            )
        log.warning("%s; the results carry it (overlap=allow).", what)
    return counts


def shared_frames(test: Manifest, training: pl.DataFrame) -> pl.DataFrame:
    """The frames of a test dataset that are training frames, whatever their names.

    Only files with the size of a training file are read.

    Args:
        training: the content of the training frames.

    Returns:
        Columns path and path_trained, which is the first training frame with this content.
    """
    states = file_states(test.files()).with_columns(test.table["path"])
    candidates = states.join(training, on="size", how="semi", maintain_order="left")
    contents = candidates.select("path").hstack(read_digests(candidates, test.root))
    trained = training.unique(["size", "content"], keep="first", maintain_order=True)
    return contents.join(
        trained, on=["size", "content"], suffix="_trained", maintain_order="left"
    ).select("path", "path_trained")
