"""Batches of training frames, on which a method measures gradients before it adapts a detector."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from fmsd.data.frame import REAL
from fmsd.data.loading.dataset import FrameDataset
from fmsd.data.loading.sampler import EndlessBatches, Shuffle
from fmsd.data.manifest import Manifest
from fmsd.engine.datamodule import DataModule, domain_names
from fmsd.engine.distributed import broadcast_object
from fmsd.engine.transfer import to_device
from fmsd.types import Frames


@dataclass(frozen=True)
class MeasurementBatches:
    """Draws shuffled training batches to measure on, see `fmsd.peft.method.Batches`.

    Args:
        device: where pixels and labels are put.
        precision: context of forward passes.
        limit: largest number of batches per draw; None for no limit.
        mask: the layer mask of a training that was interrupted.
    """

    data: DataModule
    device: torch.device
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext
    limit: int | None = None
    mask: Path | None = None
    draws: Iterator[int] = field(default_factory=itertools.count)

    @property
    def manifest(self) -> Manifest:
        """The training frames."""
        return self.data.splits.train

    @property
    def domains(self) -> list[str]:
        """The forgeries among the training frames."""
        return [domain for domain in domain_names(self.manifest) if domain != REAL]

    def draw(self, count: int, domain: str | None = None) -> Iterator[Frames]:
        """Yields at most `count` shuffled, full batches, different in each call.

        Args:
            domain: draws fakes of this forgery and as many real frames, evenly spread; None for
                all frames.
        """
        whole = self.manifest
        chosen = whole if domain is None else with_equal_real(whole, domain)
        # the last number keeps these batches apart from those of training
        entropy = [self.data.seed, next(self.draws), 1]
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        dataset = FrameDataset(chosen, domain_names(whole), self.data.size, self.data.augment, seed)
        batches = EndlessBatches(Shuffle(dataset.domain, self.data.batch_size, seed))
        count = count if self.limit is None else min(count, self.limit)
        for batch in itertools.islice(self.data.loader(dataset, batches), count):
            yield to_device(batch, self.device)

    def broadcast(self, value: Any) -> Any:
        """Returns the value of rank 0 in all processes."""
        return broadcast_object(value)


def with_equal_real(manifest: Manifest, domain: str) -> Manifest:
    """The fakes of a forgery and at most as many real frames, evenly spread over the manifest."""
    fakes, real = manifest.table.filter(domain=domain), manifest.table.filter(domain=REAL)
    count = min(real.height, fakes.height)
    rows = torch.linspace(0, real.height - 1, count).round().int().tolist()
    return replace(manifest, table=pl.concat([fakes, real[rows]]))
