"""Scores test frames with a foreign detector; what goes wrong is an outcome of its frames.

A batch with which the detector fails is tried again frame by frame, so that one frame costs no
others their score.
"""

import logging
import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import polars as pl
import torch
from jaxtyping import Float64, UInt8
from numpy import ndarray
from torch import Tensor
from torch.utils.data import DataLoader

from fmsd.console import progress
from fmsd.data.content_files import file_contents
from fmsd.data.loading.dataset import FrameDataset
from fmsd.data.loading.image import TAR_MEMBER, read_image
from fmsd.data.loading.stored import StoredFrames
from fmsd.data.manifest import Manifest
from fmsd.data.processes import start_worker
from fmsd.engine.predictions import flatten_noise, tie_equal_files
from fmsd.errors import InputError
from fmsd.inference.external_detector import ExternalDetector, OutputError
from fmsd.inference.external_factory import error_place, error_text
from fmsd.machine_errors import memory_error
from fmsd.metrics.score_scale import Scale, as_logits
from fmsd.outcomes import FAILED, SCORED, UNREADABLE
from fmsd.package_files import PACKAGE

log = logging.getLogger(__name__)

Batch = TypeVar("Batch")

FIRST = 32
"""Frames after which a detector that has scored none is given up."""

PRECISION = "32-true"
"""What the last bits of a detector's scores are taken to depend on, see `flatten_noise`."""


class DetectorError(InputError):
    """A detector that scores no frame."""


class FrameScores(NamedTuple):
    """What became of the frames of a dataset, in the order of its manifest.

    Args:
        value: the scores, as the detector returned them; NaN where there is none.
        outcome: of each frame, see `fmsd.outcomes`.
        content: the digests of the files, UInt64; null where there is no file.
    """

    value: Float64[ndarray, " frames"]
    outcome: list[str]
    content: pl.Series


class CarefulScorer:
    """Calls a detector, and counts the frames that it fails on.

    Attributes:
        scored, failed: the numbers of frames.
        first: of the first failure, what was wrong.
        dataset: whose frames are scored, for messages; None once a warning has said that they are
            scored one by one.
    """

    def __init__(self, detector: ExternalDetector) -> None:
        self.detector = detector
        self.scored = 0
        self.failed = 0
        self.first: str | None = None
        self.dataset: str | None = None

    def scores(
        self, batch: UInt8[Tensor, "frames 3 height width"] | Sequence[str], names: Sequence[str]
    ) -> Float64[ndarray, " frames"]:
        """The scores of a batch; NaN for the frames that the detector fails on.

        Args:
            names: of the frames, for messages.

        Raises:
            DetectorError: it has failed on the first `FIRST` frames, and scored none.
            InputError: the memory does not suffice.
        """
        values = self._called(batch, names[0])
        if values is None and len(names) == 1:
            return np.full(1, np.nan)
        if values is None:
            singles = (batch[place : place + 1] for place in range(len(names)))
            return np.concatenate(
                [self.scores(one, [name]) for one, name in zip(singles, names, strict=True)]
            )
        good = np.isfinite(values)
        if self.detector.declared.scale == "probability":
            good &= (values >= 0) & (values <= 1)
        self.scored += int(good.sum())
        for place in np.flatnonzero(~good).tolist():
            what = "probability" if np.isfinite(values[place]) else "score"
            self._fail(names[place], f"its {what} is {values[place]:g}")
        return np.where(good, values, np.nan)

    def _called(
        self, batch: UInt8[Tensor, "frames 3 height width"] | Sequence[str], name: str
    ) -> Float64[ndarray, " frames"] | None:
        """What the detector returns; None where it fails, which counts for a batch of one frame.

        Args:
            name: of the first frame.

        Raises:
            InputError: the memory does not suffice.
        """
        try:
            return self.detector(batch)
        except OutputError as error:
            text, trace = str(error), ""
        except (Exception, SystemExit) as error:
            if refusal := memory_error(error):
                raise refusal from error
            text, trace = f"{error_text(error)}{error_place(error)}", own_traceback(error)
        if len(batch) == 1:
            self._fail(name, text, trace)
        elif self.dataset is not None:
            log.warning(
                "The detector failed on a batch of %d frames of %s: %s. The frames of such batches "
                "are scored one by one.",
                len(batch),
                self.dataset,
                text,
            )
            self.dataset = None
        return None

    def _fail(self, name: str, text: str, trace: str = "") -> None:
        """Counts a failure; logs the first.

        Raises:
            DetectorError: see `scores`.
        """
        self.failed += 1
        if self.first is None:
            self.first = text
            log.warning(
                "The detector failed on %s: %s. Such frames count as failed.%s",
                name,
                text,
                f"\n{trace.rstrip()}" if trace else "",
            )
        if self.failed >= FIRST:
            self.check()

    def check(self) -> None:
        """Checks that a frame was scored.

        Raises:
            DetectorError: none was, of those that were tried.
        """
        if self.failed and not self.scored:
            raise DetectorError(
                f"The detector failed on all of the first {self.failed} frames ({self.first})",
                "correct it, or what is declared of it (scale=, size=, mean=, std=, takes=)",
            )


def own_traceback(error: BaseException) -> str:
    """The traceback of an error from the first frame on that lies outside of this package."""
    trace = error.__traceback__
    while trace is not None and Path(trace.tb_frame.f_code.co_filename).is_relative_to(PACKAGE):
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace, chain=False))


def score_frames(
    scorer: CarefulScorer, manifest: Manifest, size: int | None, batch_size: int, workers: int
) -> FrameScores:
    """The scores of the frames of a dataset.

    Args:
        size: side of the images that the detector is called with; None to call it with paths.
        batch_size: frames that are scored together.
        workers: processes that read images.

    Raises:
        InputError: the files lie in tars, which a detector cannot read; or see `CarefulScorer`.
    """
    scorer.dataset = manifest.table["dataset"][0]
    if size is None:
        return _score_files(scorer, manifest, batch_size)
    return _score_images(scorer, manifest, size, batch_size, workers)


def _score_images(
    scorer: CarefulScorer, manifest: Manifest, size: int, batch_size: int, workers: int
) -> FrameScores:
    """The scores of images that are read here."""
    files = FrameDataset(manifest, manifest.table["domain"].unique().to_list(), size)
    loader = DataLoader(
        StoredFrames(files),
        batch_size,
        num_workers=workers,
        worker_init_fn=partial(start_worker, os.getpid()),
    )
    paths = manifest.table["path"]
    value = np.full(len(manifest), np.nan)
    content = np.zeros(len(manifest), np.int64)
    stored = np.zeros(len(manifest), bool)
    fault: str | None = None
    outcome = [SCORED] * len(manifest)
    for batch in _advanced(loader, manifest, lambda one: len(one.row)):
        rows = batch.row.numpy()
        content[rows], stored[rows] = batch.content.numpy(), batch.stored.numpy()
        good = [place for place, text in enumerate(batch.fault) if not text]
        fault = fault or next((text for text in batch.fault if text), None)
        for place in {*range(len(rows))}.difference(good):
            outcome[rows[place]] = UNREADABLE
        if good:
            value[rows[good]] = scorer.scores(batch.image[good], paths[rows[good]].to_list())
    if fault is not None:
        log.warning("%s Such frames count as unreadable.", fault)
    for row in np.flatnonzero(np.isnan(value)):
        outcome[row] = UNREADABLE if outcome[row] == UNREADABLE else FAILED
    table = pl.DataFrame({"content": content, "stored": stored})
    digest = pl.when("stored").then(pl.col("content").reinterpret(signed=False))
    return FrameScores(value, outcome, table.select(content=digest)["content"])


def _score_files(scorer: CarefulScorer, manifest: Manifest, batch_size: int) -> FrameScores:
    """The scores of files that the detector reads itself.

    A file on which it fails is unreadable if it cannot be decoded here either.
    """
    places = manifest.files()
    if places and TAR_MEMBER.fullmatch(places[0]):
        raise InputError(
            f"The images below {manifest.root} lie in tars, and the detector takes paths",
            "give the folder that fmsd pack was called with as data.root, or a detector of images",
        )
    content = file_contents(manifest)
    value = np.full(len(places), np.nan)
    outcome = [SCORED] * len(places)
    starts = range(0, len(places), batch_size)
    batches = [places[start : start + batch_size] for start in starts]
    for start, batch in zip(starts, _advanced(batches, manifest, len), strict=True):
        readable = [place for place in range(len(batch)) if content[start + place] is not None]
        for place in range(len(batch)):
            outcome[start + place] = FAILED if content[start + place] is not None else UNREADABLE
        given = [batch[place] for place in readable]
        found = scorer.scores(given, given) if given else np.empty(0)
        for place, score in zip(readable, found, strict=True):
            value[start + place] = score
            if np.isfinite(score):
                outcome[start + place] = SCORED
            elif not _is_readable(batch[place]):
                outcome[start + place] = UNREADABLE
    return FrameScores(value, outcome, content)


def _is_readable(path: str) -> bool:
    try:
        read_image(path)
    except InputError:
        return False
    return True


def _advanced(
    batches: Iterable[Batch], manifest: Manifest, size: Callable[[Batch], int]
) -> Iterator[Batch]:
    """Yields batches under a progress bar that counts frames."""
    what = f"Scoring {manifest.table['dataset'][0]}"
    with progress(what, len(manifest), "frames") as advance:
        for batch in batches:
            yield batch
            advance(size(batch))


def checked_scores(found: Mapping[str, FrameScores], scale: Scale) -> dict[str, pl.DataFrame]:
    """The scores of all test datasets, for `fmsd.engine.external_scores.logits_of_fake`.

    As with our own detectors, frames with equal files get one score. Where different files have
    nothing but one score, give or take the noise of the arithmetic, all frames count as failed.

    Args:
        found: by dataset.

    Returns:
        By dataset, `score` (null without one), `outcome` and `content` of each frame.
    """
    tables = {}
    for name, one in found.items():
        value, outcome = tied(one.value, one.content), one.outcome
        if is_constant(value, one.content, scale):
            log.warning(
                "The detector gave all %d frames of %s the same score, so they count as failed.",
                np.isfinite(value).sum(),
                name,
            )
            value = np.full(len(value), np.nan)
            outcome = [FAILED if each == SCORED else each for each in outcome]
        score = pl.Series("score", value, nan_to_null=True)
        tables[name] = pl.DataFrame([score, pl.Series("outcome", outcome), one.content])
    return tables


def is_constant(value: Float64[ndarray, " frames"], content: pl.Series, scale: Scale) -> bool:
    """Whether a detector gave different images of a dataset one score.

    Args:
        value: the scores; NaN where there is none. Those of a known scale may differ in noise.
        content: the digests of the files; null where there is none.
    """
    known = np.isfinite(value)
    files = content.filter(pl.Series(known))
    if files.drop_nulls().n_unique() + files.null_count() < 2:
        return False
    scores = value[known]
    if scale != "score":
        logits = as_logits(scores, scale, "fake")
        scores = flatten_noise(torch.from_numpy(logits), PRECISION).numpy()
    return len(np.unique(scores)) == 1


def tied(value: Float64[ndarray, " frames"], content: pl.Series) -> Float64[ndarray, " frames"]:
    """Scores with one value for all frames of equal files; NaN, and files that are not there, stay.

    Args:
        content: the digests of the files; null where there is none.
    """
    known = np.isfinite(value) & content.is_not_null().to_numpy()
    result = value.copy()
    digests = content.filter(pl.Series(known)).reinterpret(signed=True).to_numpy(writable=True)
    result[known] = tie_equal_files(torch.from_numpy(value[known]), torch.from_numpy(digests))
    return result
