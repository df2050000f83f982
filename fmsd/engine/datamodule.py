"""Loaders: the frames of a selection as batches for training, validation and tests."""

import math
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import polars as pl
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from fmsd.checks import check_choice, check_range
from fmsd.data.absent_videos import load_absent
from fmsd.data.frame import SCHEMA
from fmsd.data.loading import blending
from fmsd.data.loading.corruptions import Corruption
from fmsd.data.loading.dataset import FrameDataset
from fmsd.data.loading.features import FeatureDataset
from fmsd.data.loading.readable import ReadableFrames, collate_readable
from fmsd.data.loading.sampler import EndlessBatches, Order, ProcessBatches
from fmsd.data.loading.shards import fetch_ahead
from fmsd.data.manifest import Manifest
from fmsd.data.processes import available_cores, start_worker
from fmsd.data.selected_frames import (
    TrainingSplits,
    list_frames,
    load_test_datasets,
    load_training_splits,
    skipped_datasets,
)
from fmsd.data.selection import Selection
from fmsd.data.selection_checks import check_classes
from fmsd.engine import training_order
from fmsd.engine.lightning_compat import fit_position
from fmsd.engine.training_order import MANIPULATION
from fmsd.errors import InputError
from fmsd.metrics.video import aggregation
from fmsd.types import Frames

DataPart = Literal["training", "validation", "tests"]
"""A part of the data that a verb needs; `training` includes validation."""


class DataModule(LightningDataModule):
    """The batches of a selection's frames, which `load` reads from disk.

    Args:
        selection: the rules that choose the frames.
        size: height and width of the network's input in pixels.
        augment: name of the training augmentation, see `fmsd.data.loading.transforms`; with `sbi`,
            self-blended images replace the training fakes.
        batches: `shuffle`, or batches that each hold every domain with both classes: `balanced` in
            equal parts, `natural` in parts that follow their number of frames, see
            `fmsd.data.loading.sampler`; or `pairs`, `balanced_pairs` and `natural_pairs`, which
            hold each fake with a frame of its real video, see `fmsd.data.loading.pairs`.
            With `shards`, the frames of a pack are shown in the order of its tars, see
            `fmsd.data.loading.shards`.
        domains: `manipulation`, the forgery of a fake frame, to which each epoch deals real frames
            anew (equal names in two training datasets are one domain), or a column of the manifest,
            for example `dataset`.
        batch_size: frames per step over all processes.
        workers: loader processes; None for one per processor core, at most 8.
        seed: of order and augmentation.
        buffer: with batches=shards, number of tars whose frames are mixed.
        strong: name of the augmentation of a second view of each training frame, for a loss that
            compares two; None for no such view.
        watch_tests: the test datasets are scored after every epoch, too.

    Attributes:
        listed: all frames of the root, see `fmsd.data.selected_frames.list_frames`.
        splits: the train and val splits; the parts `training` and `validation` load them.
        tests: the test split of each test dataset; the part `tests` loads them.
        absent: the test videos of each of which there is no frame, see
            `fmsd.data.absent_videos.load_absent`; the part `tests` loads them.
        skipped: the test datasets without a root; the part `tests` finds them.
        features: features and digests of the frames of `train`, `val` and `test/NAME`, which
            replace their pixels, see `fmsd.engine.cached_features`; empty after `load`.

    Raises:
        InputError: a setting is out of range or unknown.
    """

    listed: Manifest
    splits: TrainingSplits
    tests: dict[str, Manifest]
    absent: dict[str, pl.DataFrame]
    skipped: list[str]
    features: dict[str, tuple[Tensor, Tensor]]

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
        strong: str | None = None,
        buffer: int = 6,
        *,
        watch_tests: bool = False,
    ) -> None:
        super().__init__()
        check_choice("data.batches", batches, training_order.BATCHES)
        check_choice("data.domains", domains, (MANIPULATION, *SCHEMA.names()))
        check_range("data.batch_size", batch_size, 1)
        check_range("data.buffer", buffer, 1)
        aggregation(selection.video_score)
        self.selection = selection
        self.size = size
        self.augment = augment
        self.batches = batches
        self.domains = domains
        self.batch_size = batch_size
        self.workers = min(8, available_cores()) if workers is None else workers
        self.seed = seed
        self.strong = strong
        self.buffer = buffer
        self.watch_tests = watch_tests
        self.resume_position = (0, 0)  # epoch and batch that training begins with
        self._order: Order | None = None

    def load(self, *parts: DataPart) -> None:
        """Reads the frames of some parts from disk, once for all that follows, and checks them.

        With `augment=sbi` self-blended images replace the fakes of the train split.

        Raises:
            InputError: frames of these parts cannot be used, or the train or val split lacks a
                class.
        """
        self.listed = list_frames(self.selection)
        self.features = {}
        if "training" in parts or "validation" in parts:
            self.splits = load_training_splits(self.selection, self.listed)
        if "training" in parts:
            self._order = None
            if self.augment == blending.SBI:
                blended = blending.add_self_blended(self.splits.train)
                self.splits = replace(self.splits, train=blended)
            check_classes(self.splits.train, "train", self.selection.train)
        if "training" in parts or "validation" in parts:
            check_classes(self.splits.validation, "val", self.selection.train)
        if "tests" in parts:
            self.skipped = skipped_datasets(self.selection, self.listed)
            self.tests = load_test_datasets(self.selection, self.listed)
            self.absent = load_absent(self.selection, self.tests)

    @property
    def validations(self) -> dict[str, Manifest]:
        """The manifests scored after every epoch, by name: validation (""), then watched tests."""
        return {"": self.splits.validation} | (self.tests if self.watch_tests else {})

    @property
    def rank_and_world_size(self) -> tuple[int, int]:
        """The rank of this process and the number of processes; (0, 1) without a trainer."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    @property
    def training_domains(self) -> list[str]:
        """The domains of domain batches in the order of their ids; none for other batches."""
        return training_order.training_domains(self.splits.train, self.batches, self.domains)

    @property
    def is_paired(self) -> bool:
        """Whether the batches consist of pairs."""
        return self.batches in training_order.PAIRS

    @property
    def order(self) -> Order:
        """The order of the training frames, made at its first use.

        Raises:
            InputError: see `fmsd.engine.training_order.make_order`.
        """
        if self._order is None:
            self._order = training_order.make_order(
                self.splits.train,
                self.batches,
                self.domains,
                self.batch_size,
                self.seed,
                self.buffer,
            )
        return self._order

    def train_dataloader(self) -> DataLoader[Frames]:
        """Augmented training frames in the batches of `order`.

        After a resumption they begin at the position of the checkpoint.

        Raises:
            InputError: a batch is too small for the processes, or as in `order`.
        """
        manifest = self.splits.train
        dataset = self.kept_features(manifest, "train") or FrameDataset(
            manifest,
            domain_names(manifest),
            self.size,
            self.augment,
            self.seed,
            strong=self.strong,
            ahead=fetch_ahead(self.order),
        )
        rank, processes = self.rank_and_world_size
        if self.batch_size < self.order.group * processes:
            raise InputError(
                f"data.batch_size={self.batch_size} is shared by {processes} processes",
                f"raise it to at least {self.order.group * processes}",
            )
        epoch, start = self.resume_position
        batches = ProcessBatches(self.order, rank, processes, epoch, start)
        return self.loader(dataset, batches, reused=True)

    def val_dataloader(self) -> list[DataLoader[Frames]]:
        """The validation frames and, if they are watched, the test datasets, in manifest order.

        Each of several processes loads its share.

        Raises:
            InputError: there are more processes than frames.
        """
        rank, processes = self.rank_and_world_size
        validations = self.validations
        if (fewest := min(map(len, validations.values()))) < processes:
            raise InputError(
                f"{fewest} validation frames are shared by {processes} processes",
                "lower trainer.devices",
            )
        return [
            self.loader(
                self.kept_features(manifest, f"test/{name}" if name else "val")
                or self.unaugmented(manifest),
                None,
                rank,
                processes,
                reused=True,
            )
            for name, manifest in validations.items()
        ]

    def validation_loader(self) -> DataLoader[Frames]:
        """All validation frames in manifest order, in every process."""
        manifest = self.splits.validation
        return self.loader(self.kept_features(manifest, "val") or self.unaugmented(manifest), None)

    def test_loader(
        self, name: str, corruption: Corruption | None = None, *, skip_unreadable: bool = False
    ) -> DataLoader[Frames]:
        """All frames of a test dataset in manifest order, in every process; clean or corrupted.

        Args:
            skip_unreadable: leave out frames that cannot be read, instead of raising an error.
        """
        kept = self.kept_features(self.tests[name], f"test/{name}")
        if kept is not None and corruption is None:
            return self.loader(kept, None)
        frames = self.unaugmented(self.tests[name], corruption)
        return self.loader(ReadableFrames(frames) if skip_unreadable else frames, None)

    def kept_features(self, manifest: Manifest, part: str) -> FeatureDataset | None:
        """The frames of a part by their features; None where these are not kept.

        Args:
            part: a key of `features`.
        """
        if part not in self.features:
            return None
        return FeatureDataset(manifest, domain_names(manifest), *self.features[part])

    def unaugmented(self, manifest: Manifest, corruption: Corruption | None = None) -> FrameDataset:
        """The frames of a manifest without augmentation."""
        return FrameDataset(manifest, domain_names(manifest), self.size, corruption=corruption)

    def loader(
        self,
        dataset: FrameDataset | ReadableFrames | FeatureDataset,
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
        workers = 0 if isinstance(dataset, FeatureDataset) else self.workers
        return DataLoader(
            dataset,
            num_workers=workers,
            worker_init_fn=partial(start_worker, os.getpid()),
            persistent_workers=reused and workers > 0,
            collate_fn=collate_readable if isinstance(dataset, ReadableFrames) else None,
            pin_memory=torch.accelerator.is_available(),
            **order,
        )

    def teardown(self, stage: str) -> None:
        """Makes the next training begin with its first batch, unless it is resumed."""
        if stage == "fit":
            self.resume_position = (0, 0)

    def state_dict(self) -> dict[str, Any]:
        """The epoch and batch index that training goes on with; Lightning saves them."""
        epoch, batch = fit_position(self.trainer) if self.trainer else self.resume_position
        return {"epoch": epoch, "batch": batch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Makes the next training loader begin at a saved position."""
        self.resume_position = (state_dict["epoch"], state_dict["batch"])


DataFactory = Callable[..., DataModule]
"""Makes a data module; its keywords are those of the configuration, `watch_tests` is added."""


def domain_names(manifest: Manifest) -> list[str]:
    """The forgeries of a manifest and `real`, in the order of their ids."""
    return manifest.table["domain"].unique().sort().to_list()
