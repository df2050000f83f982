"""Datasets on disk as loaders: which frames are trained on, which choose the weights, which are tested on."""

import functools
import itertools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from fmsd.data import manifest as manifests
from fmsd.data.dataset import FrameDataset
from fmsd.data.manifest import Manifest
from fmsd.data.sampler import Endless, Shuffle
from fmsd.types import REAL, Frame, Frames, InputError

log = logging.getLogger(__name__)

Scan = Callable[[Path], Iterable[Frame]]
"""A source: yields the frames below a root."""


class DataModule(LightningDataModule):
    """Scans, checks and loads the frames of a training dataset and its test datasets.

    Args:
        name: the data's name, for messages.
        root: its folder.
        source: lists the frames under the root.
        train: datasets to train on, among those the source yields.
        test: datasets to test on: those the source yields, and the names in `others`.
        others: sources of test datasets that lie elsewhere.
        roots: their folders; one without a folder is skipped, with a word.
        manifest: a manifest written by `fmsd index`, read instead of scanning the root.
        size: height and width of the network's input in pixels.
        frames: at most so many frames per video, evenly spread; None for all.
        videos: at most so many videos per split and domain, for a quick trial; None for all.
        val_fraction: share of the training videos held out for validation where the dataset has no validation split.
        augment: name of the training augmentation, see `fmsd.data.transforms`.
        workers: loader processes; None for one per processor core, at most 8.
    """

    def __init__(
        self,
        name: str,
        root: str | None,
        source: Scan,
        train: Sequence[str],
        test: Sequence[str],
        size: int,
        others: Mapping[str, Scan] | None = None,
        roots: Mapping[str, str | None] | None = None,
        manifest: str | None = None,
        frames: int | None = None,
        videos: int | None = None,
        val_fraction: float = 0.1,
        augment: str = "light",
        batch_size: int = 32,
        workers: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.name, self.root, self.source, self.manifest = name, root, source, manifest
        self.train_names, self.test_names, self.others = list(train), list(test), others or {}
        self.roots = roots or {}
        self.skipped: list[str] = []
        self.frames, self.videos, self.val_fraction = frames, videos, val_fraction
        self.size, self.augment, self.batch_size, self.seed = size, augment, batch_size, seed
        self.workers = min(8, os.cpu_count() or 1) if workers is None else workers
        limits = {"batch_size": batch_size, "frames": frames, "videos": videos}
        if wrong := [f"data.{key}={value}" for key, value in limits.items() if value is not None and value < 1]:
            raise InputError(f"{', '.join(wrong)} must be at least 1; null means no limit for frames and videos.")
        if not 0 < val_fraction < 1:
            raise InputError(f"data.val_fraction={val_fraction} must lie between 0 and 1.")

    @functools.cached_property
    def own(self) -> Manifest:
        """Everything that the source yields, unchecked."""
        if self.root is None:
            raise InputError(f"data={self.name} has no root; give the dataset's folder as data.root=PATH.")
        root = Path(self.root).expanduser().absolute()
        if self.manifest is not None:
            return manifests.read(Path(self.manifest).expanduser(), root)
        return manifests.collect(self.source(root), root)

    @functools.cached_property
    def training(self) -> Manifest:
        """The training datasets, checked, with a validation split."""
        known = self.own.table["dataset"].unique().sort().to_list()
        if not self.train_names:
            raise InputError(f"data={self.name} names no dataset to train on; choose from {', '.join(known)} in data.train=[...].")
        if unknown := [name for name in self.train_names if name not in known]:
            raise InputError(f"data.train names {', '.join(unknown)}, but data={self.name} holds {', '.join(known)}; correct data.train=[...].")
        chosen = self.own.where(dataset=self.train_names).validate(files=False)
        parts = []
        for name in self.train_names:
            part = chosen.where(dataset=name)
            if not len(part.where(split="val")):
                log.info("%s has no validation split: %.0f %% of its training videos are held out for it.", name, 100 * self.val_fraction)
                part = part.hold_out(self.val_fraction)
            parts.append(part)
        chosen = replace(chosen, table=pl.concat([part.table for part in parts]))
        chosen = self._reduced(chosen).where(split=["train", "val"]).validate()
        for split in ("train", "val"):
            labels = chosen.where(split=split).table["label"].unique().to_list()
            if len(labels) < 2:
                held = "no" if not labels else "only fake" if labels[0] else "only real"
                raise InputError(
                    f"The {split} split of {', '.join(self.train_names)} has {held} frames; a detector needs real and fake ones in it "
                    "(where validation videos are held out, those whose names share the part before the first _ go together)."
                )
        return chosen

    @functools.cached_property
    def tests(self) -> dict[str, Manifest]:
        """The test split of every test dataset, checked; those whose root is not given are left out."""
        found = {}
        for name in self.test_names:
            if name in self.own.table["dataset"]:
                whole = self.own.where(dataset=name)
            elif name in self.others:
                root = self.roots.get(name)
                if root is None:
                    log.warning("The test dataset %s is skipped: its root is not given (data.roots.%s=PATH).", name, name)
                    self.skipped.append(name)
                    continue
                place = Path(root).expanduser().absolute()
                found_there = manifests.collect(self.others[name](place), place)
                whole = found_there.where(dataset=name)
                if not len(whole):
                    held = ", ".join(found_there.table["dataset"].unique().sort())
                    raise InputError(f"conf/data/{name}.yaml describes the dataset {held}, not {name}; name it so in data.test=[...].")
            else:
                raise InputError(
                    f"data.test names {name}, which data={self.name} does not hold and no conf/data/{name}.yaml describes; correct data.test=[...]."
                )
            test = self._reduced(whole.validate(files=False)).where(split="test")
            if not len(test):
                raise InputError(f"The dataset {name} has no test split; leave it out of data.test=[...], or mark test videos in its source.")
            if test.table["label"].n_unique() < 2:
                only = "fake" if test.table["label"][0] else "real"
                raise InputError(
                    f"The test split of {name} has only {only} frames, so no AUC exists; complete it, or leave it out of data.test=[...]."
                )
            if both := self.training_files.intersection(test.files()):
                raise InputError(f"{min(both)} is a training and a test frame of {name}; give each file to one of data.train and data.test.")
            found[name] = test.validate()
        if not found:
            raise InputError("No test dataset is left; give one in data.test=[...].")
        return found

    @functools.cached_property
    def training_files(self) -> frozenset[str]:
        """Every training and validation file of the training datasets, before any reduction."""
        return frozenset(self.own.where(dataset=self.train_names, split=["train", "val"]).files())

    def _reduced(self, manifest: Manifest) -> Manifest:
        return manifest.first(self.videos).spread(self.frames)

    @property
    def validation(self) -> Manifest:
        """The frames that choose the weights."""
        return self.training.where(split="val")

    def train_dataloader(self) -> DataLoader[Frames]:
        """Shuffled and augmented training frames."""
        manifest = self.training.where(split="train")
        dataset = FrameDataset(manifest, self.domains(manifest), self.size, self.augment, self.seed)
        return self.loader(dataset, Shuffle(len(dataset), self.seed))

    def val_dataloader(self) -> DataLoader[Frames]:
        """The validation frames in the manifest's order."""
        return self._plain(self.validation)

    def test_loader(self, name: str) -> DataLoader[Frames]:
        """The frames of one test dataset in the manifest's order."""
        return self._plain(self.tests[name])

    def domains(self, manifest: Manifest) -> list[str]:
        """Forgeries, and `real`, in the order of their ids."""
        return manifest.table["domain"].unique().sort().to_list()

    def _plain(self, manifest: Manifest) -> DataLoader[Frames]:
        return self.loader(FrameDataset(manifest, self.domains(manifest), self.size), None)

    def loader(self, dataset: FrameDataset, sampler: Shuffle | Endless | None) -> DataLoader[Frames]:
        """Batches in the sampler's order, or in the manifest's."""
        training = isinstance(sampler, Shuffle)
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.workers,
            persistent_workers=training and self.workers > 0,
            pin_memory=torch.accelerator.is_available(),
        )


@dataclass(frozen=True)
class TrainingBatches:
    """Batches of the training split outside of training, for a method that measures before it chooses.

    Args:
        device: where they are put.
        precision: context of forward passes.
        limit: at most so many per draw; None for no limit.
    """

    data: DataModule
    device: torch.device
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext
    limit: int | None = None
    draws: Iterator[int] = field(default_factory=itertools.count)

    @property
    def manifest(self) -> Manifest:
        """The training frames."""
        return self.data.training.where(split="train")

    @property
    def domains(self) -> list[str]:
        """The forgeries among them."""
        return [domain for domain in self.data.domains(self.manifest) if domain != REAL]

    def draw(self, count: int, domain: str | None = None) -> Iterator[Frames]:
        """At most `count` shuffled, full batches, others at every call; with a domain, of its fakes and as many real frames, evenly spread."""
        whole = self.manifest
        chosen = whole
        if domain is not None:
            fakes, real = whole.table.filter(domain=domain), whole.table.filter(domain=REAL)
            places = torch.linspace(0, real.height - 1, min(real.height, fakes.height)).round().int().tolist()
            chosen = replace(whole, table=pl.concat([fakes, real[places]]))
        seed = int(np.random.SeedSequence([self.data.seed, next(self.draws), 1]).generate_state(1)[0])  # other batches than training's first
        dataset = FrameDataset(chosen, self.data.domains(whole), self.data.size, self.data.augment, seed)
        loader = self.data.loader(dataset, Endless(len(dataset), seed))
        for batch in itertools.islice(loader, count if self.limit is None else min(count, self.limit)):
            yield Frames(*(part.to(self.device, non_blocking=True) for part in batch))
