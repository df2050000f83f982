"""Loaders: the frames of a selection as batches for training, validation and tests."""

import functools
import logging
import math
from collections.abc import Callable
from typing import Any

import polars as pl
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from fmsd.data import selection_checks as checks
from fmsd.data.frame import SCHEMA
from fmsd.data.loading import blending
from fmsd.data.loading.corruptions import Corruption
from fmsd.data.loading.dataset import FrameDataset, start_worker
from fmsd.data.loading.sampler import (
    UNASSIGNED,
    EndlessBatches,
    EveryDomain,
    ProcessBatches,
    Shuffle,
)
from fmsd.data.manifest import Manifest
from fmsd.data.processes import available_cores
from fmsd.data.selection import Selection
from fmsd.engine.lightning_compat import fit_position
from fmsd.errors import InputError
from fmsd.metrics.video import aggregation
from fmsd.types import Frames

log = logging.getLogger(__name__)

MANIPULATION = "manipulation"
"""The value of `data.domains` for which the domain of a fake frame is its forgery."""


class DataModule(LightningDataModule):
    """Loads the frames of a selection.

    Args:
        selection: the frames.
        size: height and width of the network's input in pixels.
        augment: name of the training augmentation, see `fmsd.data.loading.transforms`; with `sbi`,
            self-blended images replace the training fakes.
        batches: `shuffle`, or batches that each hold every domain with both classes: `balanced` in
            equal parts, `natural` in parts that follow their number of frames; see
            `fmsd.data.loading.sampler`.
        domains: `manipulation`, the forgery of a fake frame, to which each epoch deals real frames
            anew (equal names in two training datasets are one domain), or a column of the manifest,
            for example `dataset`.
        batch_size: frames per step over all processes.
        workers: loader processes; None for one per processor core, at most 8.
        seed: of order and augmentation.
        watch_tests: the test datasets are scored after every epoch, too.

    Raises:
        InputError: a setting is out of range or unknown.
    """

    def __init__(
        self,
        selection: Selection,
        size: int,
        augment: str = "light",
        batches: str = "shuffle",
        domains: str = MANIPULATION,
        batch_size: int = 32,
        workers: int | None = None,
        seed: int = 0,
        *,
        watch_tests: bool = False,
    ) -> None:
        super().__init__()
        checks.check_choice("batches", batches, ("shuffle", "balanced", "natural"))
        checks.check_choice("domains", domains, (MANIPULATION, *SCHEMA.names()))
        if batch_size < 1:
            raise InputError(f"data.batch_size={batch_size} must be at least 1", "raise it")
        aggregation(selection.video_score)
        self.selection = selection
        self.size = size
        self.augment = augment
        self.batches = batches
        self.domains = domains
        self.batch_size = batch_size
        self.workers = min(8, available_cores()) if workers is None else workers
        self.seed = seed
        self.watch_tests = watch_tests
        self.position = (0, 0)  # epoch and batch that training begins with

    @functools.cached_property
    def training(self) -> Manifest:
        """The train and val splits, with self-blended images in the train split if they are wanted.

        Raises:
            InputError: the selection cannot be used, or a split lacks a class.
        """
        whole = self.selection.training
        if self.augment == blending.SBI:
            whole = blending.add_self_blended(whole)
        for split in ("train", "val"):
            checks.check_classes(whole, split, self.selection.train_names)
        return whole

    @property
    def validations(self) -> dict[str, Manifest]:
        """The manifests scored after every epoch, by name: validation (""), then watched tests."""
        tests = self.selection.tests if self.watch_tests else {}
        return {"": self.selection.validation} | tests

    @property
    def rank_and_world_size(self) -> tuple[int, int]:
        """The rank of this process and the number of processes; (0, 1) without a trainer."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    @functools.cached_property
    def training_domains(self) -> list[str]:
        """The domains of domain batches in the order of their ids; none for shuffled batches."""
        if self.batches == "shuffle":
            return []
        return self._domain(self._train_split).drop_nulls().unique().sort().to_list()

    @property
    def _train_split(self) -> Manifest:
        return self.training.where(split="train")

    def _domain(self, manifest: Manifest) -> pl.Series:
        """The name of each frame's domain; null for real frames that are dealt to domains."""
        if self.domains == MANIPULATION:
            fake = pl.when(pl.col("label") == 1)
            return manifest.table.select(fake.then(pl.col("domain"))).to_series()
        return manifest.table[self.domains].cast(pl.String)

    def train_dataloader(self) -> DataLoader[Frames]:
        """Augmented training frames, shuffled or in batches of every domain.

        After a resumption they begin at the position of the checkpoint.

        Raises:
            InputError: a batch is too small for the domains or the processes, or a domain lacks a
                class.
        """
        manifest = self._train_split
        dataset = FrameDataset(manifest, domain_names(manifest), self.size, self.augment, self.seed)
        rank, processes = self.rank_and_world_size
        if self.batch_size < processes:
            raise InputError(
                f"data.batch_size={self.batch_size} is shared by {processes} processes",
                f"raise it to at least {processes}",
            )
        epoch, start = self.position
        batches = ProcessBatches(self._order(manifest, dataset), rank, processes, epoch, start)
        return self.loader(dataset, batches, reused=True)

    def _order(self, manifest: Manifest, dataset: FrameDataset) -> Shuffle | EveryDomain:
        """The order of the training frames; logs how often small domains are recycled."""
        if self.batches == "shuffle":
            return Shuffle(dataset.domain, self.batch_size, self.seed)
        names = self.training_domains
        ids = self._domain(manifest).cast(pl.Enum(names)).to_physical().cast(pl.Int64)
        domain = ids.fill_null(UNASSIGNED).to_numpy()
        order = EveryDomain(dataset.label, domain, names, self.batch_size, self.batches, self.seed)
        if order.repeats.max() > 1.5 or order.repeats.min() < 0.67:
            often = ", ".join(
                f"{name} {fake:.2f} and {real:.2f}"
                for name, (real, fake) in zip(names, order.repeats, strict=True)
            )
            log.info(
                "Small domains are recycled, large ones not seen in full; times that an epoch "
                "shows each fake and each real frame: %s.",
                often,
            )
        return order

    def val_dataloader(self) -> list[DataLoader[Frames]]:
        """The validation frames and, if they are watched, the test datasets, in manifest order.

        Each of several processes loads its share.

        Raises:
            InputError: there are more processes than frames.
        """
        rank, processes = self.rank_and_world_size
        validations = self.validations.values()
        if (fewest := min(map(len, validations))) < processes:
            raise InputError(
                f"{fewest} validation frames are shared by {processes} processes",
                "lower trainer.devices",
            )
        return [
            self.loader(self._plain(manifest), None, rank, processes, reused=True)
            for manifest in validations
        ]

    def validation_loader(self) -> DataLoader[Frames]:
        """All validation frames in manifest order, in every process."""
        return self.loader(self._plain(self.selection.validation), None)

    def test_loader(self, name: str, corruption: Corruption | None = None) -> DataLoader[Frames]:
        """All frames of a test dataset in manifest order, in every process; clean or corrupted."""
        return self.loader(self._plain(self.selection.tests[name], corruption), None)

    def _plain(self, manifest: Manifest, corruption: Corruption | None = None) -> FrameDataset:
        """The frames of a manifest without augmentation."""
        return FrameDataset(manifest, domain_names(manifest), self.size, corruption=corruption)

    def loader(
        self,
        dataset: FrameDataset,
        batches: ProcessBatches | EndlessBatches | None,
        rank: int = 0,
        processes: int = 1,
        reused: bool = False,
    ) -> DataLoader[Frames]:
        """The frames in the given batches, or all of them in manifest order.

        Args:
            batches: None for manifest order, of which `rank` has every `processes`-th frame.
            reused: the loader is iterated more than once, so its worker processes are kept.
        """
        rows = range(rank, len(dataset), processes) if processes > 1 else None
        order: dict[str, Any] = (
            {"batch_size": math.ceil(self.batch_size / processes), "sampler": rows}
            if batches is None
            else {"batch_sampler": batches}
        )
        return DataLoader(
            dataset,
            num_workers=self.workers,
            worker_init_fn=start_worker,
            persistent_workers=reused and self.workers > 0,
            pin_memory=torch.accelerator.is_available(),
            **order,
        )

    def teardown(self, stage: str) -> None:
        """Makes the next training begin with its first batch, unless it is resumed."""
        if stage == "fit":
            self.position = (0, 0)

    def state_dict(self) -> dict[str, Any]:
        """The epoch and batch index that training goes on with; Lightning saves them."""
        epoch, batch = fit_position(self.trainer) if self.trainer else self.position
        return {"epoch": epoch, "batch": batch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Makes the next training loader begin at a saved position."""
        self.position = (state_dict["epoch"], state_dict["batch"])


DataFactory = Callable[..., DataModule]
"""Makes a data module; its keywords are those of the configuration, `watch_tests` is added."""


def domain_names(manifest: Manifest) -> list[str]:
    """The forgeries of a manifest and `real`, in the order of their ids."""
    return manifest.table["domain"].unique().sort().to_list()


def to_device(batch: Frames, device: torch.device) -> Frames:
    """Moves pixels and labels of a batch; domains and rows are read on the CPU and stay there."""
    return batch._replace(
        image=batch.image.to(device, non_blocking=True),
        label=batch.label.to(device, non_blocking=True),
    )
