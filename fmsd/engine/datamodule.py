"""Datasets on disk as loaders: which frames are trained on, which choose the weights, which are tested on."""

import functools
import itertools
import logging
import math
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

from fmsd.data import entries, packaged
from fmsd.data import manifest as manifests
from fmsd.data.frame import REAL, SCHEMA, Entry
from fmsd.data.loading import blending
from fmsd.data.loading.corruptions import Corruption
from fmsd.data.loading.dataset import FrameDataset, start_worker
from fmsd.data.loading.sampler import EndlessBatches, EveryDomain, ProcessBatches, Shuffle
from fmsd.data.manifest import Manifest
from fmsd.data.overrides import as_name, as_names
from fmsd.data.processes import available_cores
from fmsd.engine.distributed import agreed
from fmsd.errors import InputError
from fmsd.metrics.video import aggregation, group_by_folder
from fmsd.names import check_name
from fmsd.types import Frames

log = logging.getLogger(__name__)

Scan = Callable[[Path], Iterable[Entry]]
"""A source: yields the frames and videos below a root, and what is wrong with them."""


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
        manifest: a manifest written by `fmsd index`, read instead of scanning the root. A folder
            that `fmsd extract` or `fmsd pack` wrote brings its own.
        forgeries: domains of the fakes to train and test on; None for all. Real frames stay.
        compression: which to read where datasets are held in several (`c23`, `c40`); frames that
            bear none stay.
        expected: numbers of videos of a whole copy by split (or `all`) and domain, for `fmsd
            doctor`.
        names: what names of videos tell `fmsd doctor`: the `sources` that they are made from
            (`033_097`), or the `persons` that they show (`id0_id1_0003`); None for nothing.
        size: height and width of the network's input in pixels.
        protocol: the name of the rules below, written into every result.
        sampling: which `frames` of a video are taken: `spread` evenly from its first to its last,
            or the `first` ones.
        naming: what makes two frames of a dataset one video: its `id`, or the name of the `folder`
            alone, which merges equal names.
        video_score: of its frames' probabilities: `mean`, `median`, `max`, or the mean of the
            highest so many (`top5`).
        frames: at most so many frames per video; None for all.
        train_frames: the same for the videos that are trained on, where those that choose the
            weights and the tests keep `frames`; None for as many.
        videos: at most so many videos per split and domain, for a quick trial; None for all.
        val_fraction: share of the training videos held out for validation where the dataset has no
            validation split.
        train_forgeries: domains of the fakes to train on and to choose the weights by; the tests
            keep all, as for a specialist. None for all.
        left_out: a forgery that is not trained on and is, with real frames, all of the validation
            split; None for none.
        augment: name of the training augmentation, see `fmsd.data.loading.transforms`; with `sbi`,
            self-blended images take the place of the training fakes.
        batches: `shuffle`, or batches that each hold every domain with both classes: `balanced`
            with the same part for all of them, `natural` with parts that follow their numbers of
            frames; see `fmsd.data.loading.sampler`.
        domains: what a domain is: `manipulation`, the forgery of a fake frame, to which each epoch
            deals real frames anew (forgeries of the same name in two training datasets are one
            domain), or the name of a column of the manifest, for example `dataset`.
        batch_size: frames per step over all processes.
        workers: loader processes; None for one per processor core, at most 8.
    """

    def __init__(
        self,
        name: str | int,
        root: str | None,
        source: Scan,
        train: int | Sequence[str | int],
        test: int | Sequence[str | int],
        size: int,
        others: Mapping[str, Scan] | None = None,
        roots: Mapping[str, str | None] | None = None,
        manifest: str | None = None,
        forgeries: int | Sequence[str | int] | None = None,
        compression: str | int | None = None,
        expected: Mapping[str, Mapping[str, int]] | None = None,
        names: str | None = None,
        protocol: str = "fmsd",
        sampling: str = "spread",
        naming: str = "id",
        video_score: str = "mean",
        frames: int | None = None,
        train_frames: int | None = None,
        videos: int | None = None,
        val_fraction: float = 0.1,
        train_forgeries: int | Sequence[str | int] | None = None,
        left_out: str | int | None = None,
        augment: str = "light",
        batches: str = "shuffle",
        domains: str = "manipulation",
        batch_size: int = 32,
        workers: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.name, self.root, self.source, self.manifest = (
            as_name(name, "data.name"),
            root,
            source,
            manifest,
        )
        self.train_names, self.test_names = (
            as_names(train, "data.train"),
            as_names(test, "data.test"),
        )
        self.others = {
            as_name(key, "data.others"): source for key, source in (others or {}).items()
        }
        self.roots = {as_name(key, "data.roots"): place for key, place in (roots or {}).items()}
        self.expected, self.names = expected or {}, names
        self.forgeries = None if forgeries is None else as_names(forgeries, "data.forgeries")
        self.compression = None if compression is None else as_name(compression, "data.compression")
        check_name(self.name, "data.name")
        self.protocol, self.sampling, self.naming, self.video_score = (
            protocol,
            sampling,
            naming,
            video_score,
        )
        self.train_forgeries = (
            None if train_forgeries is None else as_names(train_forgeries, "data.train_forgeries")
        )
        self.left_out = None if left_out is None else as_name(left_out, "data.left_out")
        self.watched = False  # the test datasets are scored after every epoch, too
        self.skipped: list[str] = []
        self.frames, self.videos, self.val_fraction = frames, videos, val_fraction
        self.train_frames = frames if train_frames is None else train_frames
        self.size, self.augment, self.batch_size, self.seed = size, augment, batch_size, seed
        self.batches, self.domains = batches, domains
        self.position = (0, 0)  # epoch and batch that training begins with
        self.workers = min(8, available_cores()) if workers is None else workers
        limits = {
            "batch_size": batch_size,
            "frames": frames,
            "train_frames": train_frames,
            "videos": videos,
        }
        if wrong := [
            f"data.{key}={value}"
            for key, value in limits.items()
            if value is not None and value < 1
        ]:
            raise InputError(
                f"{', '.join(wrong)} must be at least 1",
                "null means no limit for frames and videos, and train_frames=null as many as "
                "frames",
            )
        if not 0 < val_fraction < 1:
            raise InputError(
                f"data.val_fraction={val_fraction} is no share", "give a number between 0 and 1"
            )
        aggregation(video_score)
        choices = (
            ("batches", batches, ("shuffle", "balanced", "natural")),
            ("domains", domains, ("manipulation", *SCHEMA.names())),
            ("sampling", sampling, ("spread", "first")),
            ("naming", naming, ("id", "folder")),
            ("names", names or "null", ("null", "sources", "persons")),
        )
        for key, value, known in choices:
            if value not in known:
                raise InputError(
                    f"data.{key}={value} is unknown", f"choose one of {', '.join(known)}"
                )

    @property
    def place(self) -> Path:
        """The root as an absolute path.

        Raises:
            InputError: none is given.
        """
        if self.root is None:
            raise InputError(
                f"data={self.name} has no root", "give the dataset's folder as data.root=PATH"
            )
        return Path(self.root).expanduser().absolute()

    @property
    def listed(self) -> Manifest | None:
        """The manifest that is read instead of scanning the root, if there is one."""
        return (
            packaged.packaged_manifest(self.place)
            if self.manifest is None
            else manifests.read_manifest(Path(self.manifest).expanduser(), self.place)
        )

    @functools.cached_property
    def own(self) -> Manifest:
        """Everything that the source yields, or what it is asked for of that, unchecked."""
        listed = self.listed
        everything = (
            entries.from_entries(self.source(self.place), self.place) if listed is None else listed
        )
        whole = self._compressed(everything, *self.train_names, *self.test_names)
        known = whole.table["domain"].unique().sort().to_list()
        if unknown := [name for name in self.forgeries or () if name not in known or name == REAL]:
            held = ", ".join(name for name in known if name != REAL)
            raise InputError(
                f"data.forgeries names {', '.join(unknown)}, but data={self.name} holds {held}",
                "correct data.forgeries=[...]",
            )
        return self._sampled(whole.only(self.forgeries))

    def _compressed(self, manifest: Manifest, *names: str) -> Manifest:
        """The manifest in the compression that is asked for, if it holds the datasets of these names in that.

        Crops of several compressions, which were put into one folder one after the other, are not
        taken together unasked.
        """
        if self.compression == "all":
            return manifest
        for name in names:
            levels = manifest.where(dataset=name).table["compression"].unique().sort()
            held = [level for level in levels if level]
            if (
                len(held) > 1
                and self.compression is None
                and packaged.crop_settings(manifest.root) is not None
            ):
                raise InputError(
                    f"{manifest.root} holds {name} in the compressions {', '.join(held)}",
                    "choose one with data.compression=NAME, or all",
                )
            if held and self.compression not in (None, *held):
                raise InputError(
                    f"data.compression={self.compression} is asked for, but {manifest.root} holds "
                    f"{name} in {', '.join(held)}",
                    f"correct it, or leave {name} out of data.train=[...] and data.test=[...]",
                )
        return manifest.only(compression=self.compression)

    def _sampled(self, manifest: Manifest) -> Manifest:
        """The manifest, if its frames were taken from their videos as the protocol says."""
        crops = packaged.crop_settings(manifest.root)
        if crops is not None and crops["frames"] is not None and crops["sampling"] != self.sampling:
            kind = {"spread": "evenly spread frames", "first": "the first frames"}
            raise InputError(
                f"{manifest.root} holds {kind[crops['sampling']]} of each video, but the protocol "
                f"{self.protocol} wants {kind[self.sampling]}",
                f"make them with fmsd extract sampling={self.sampling} out=FOLDER",
            )
        return manifest

    @functools.cached_property
    def training(self) -> Manifest:
        """The training datasets, checked, with a validation split."""
        known = self.own.table["dataset"].unique().sort().to_list()
        if not self.train_names:
            raise InputError(
                f"data={self.name} names no dataset to train on",
                f"choose from {', '.join(known)} in data.train=[...]",
            )
        if unknown := [name for name in self.train_names if name not in known]:
            raise InputError(
                f"data.train names {', '.join(unknown)}, but data={self.name} holds "
                f"{', '.join(known)}",
                "correct data.train=[...]",
            )
        chosen = self.own.where(dataset=self.train_names).validate(files=False)
        parts = []
        for name in self.train_names:
            part = chosen.where(dataset=name)
            if not len(part.where(split="val")):
                log.info(
                    "%s has no validation split: %.0f %% of its training videos are held out for "
                    "it.",
                    name,
                    100 * self.val_fraction,
                )
                part = part.hold_out(self.val_fraction)
            parts.append(part)
        chosen = replace(chosen, table=pl.concat([part.table for part in parts]))
        chosen = self._without(
            self._specialised(self._reduced(chosen).where(split=["train", "val"]))
        ).validate()
        if self.augment == blending.SBI:
            chosen = blending.add_self_blended(chosen)
        for split in ("train", "val"):
            labels = chosen.where(split=split).table["label"].unique().to_list()
            if len(labels) < 2:
                held = "no" if not labels else "only fake" if labels[0] else "only real"
                raise InputError(
                    f"The {split} split of {', '.join(self.train_names)} has {held} frames",
                    "a detector needs real and fake ones in it "
                    "(where validation videos are held out, those whose names share the part "
                    "before the first _ go together)",
                )
        return chosen

    def _specialised(self, manifest: Manifest) -> Manifest:
        """The manifest with its real frames and those of the forgeries to train on."""
        known = manifest.table.filter(label=1)["domain"].unique().sort().to_list()
        if unknown := [name for name in self.train_forgeries or () if name not in known]:
            raise InputError(
                f"data.train_forgeries names {', '.join(unknown)}, but the training data holds "
                f"{', '.join(known)}",
                "correct it, or leave it out",
            )
        return manifest.only(self.train_forgeries)

    def _without(self, manifest: Manifest) -> Manifest:
        """The manifest with the forgery that is left out in its validation split alone, and no other forgery there."""
        if self.left_out is None:
            return manifest
        forgeries = (
            manifest.where(split="train").table.filter(label=1)["domain"].unique().sort().to_list()
        )
        if self.left_out not in forgeries or len(forgeries) < 2:
            raise InputError(
                f"data.left_out={self.left_out} leaves a forgery out of the training data, which "
                f"holds {', '.join(forgeries)}",
                "name one of several",
            )
        validating, own = pl.col("split") == "val", pl.col("domain") == self.left_out
        return replace(
            manifest,
            table=manifest.table.filter(
                pl.when(validating).then(own | (pl.col("label") == 0)).otherwise(~own)
            ),
        )

    @functools.cached_property
    def tests(self) -> dict[str, Manifest]:
        """The test split of every test dataset, checked; those whose root is not given are left out."""
        tests = {}
        for name in self.test_names:
            if name in self.own.table["dataset"]:
                whole = self.own.where(dataset=name)
            elif name in self.others:
                root = self.roots.get(name)
                if root is None:
                    word = f"{'' if name in self.roots else '+'}data.roots.{name}=PATH"
                    log.warning(
                        "The test dataset %s is skipped: its root is not given (%s).", name, word
                    )
                    self.skipped.append(name)
                    continue
                place = Path(root).expanduser().absolute()
                elsewhere = self._sampled(self._compressed(found(self.others[name], place), name))
                whole = elsewhere.where(dataset=name)
                if not len(whole):
                    held = ", ".join(elsewhere.table["dataset"].unique().sort())
                    raise InputError(
                        f"{place} holds {held}, not {name}",
                        f"correct data.roots.{name}=PATH, or the name in conf/data/{name}.yaml",
                    )
            else:
                raise InputError(
                    f"data.test names {name}, which data={self.name} does not hold and no "
                    f"conf/data/{name}.yaml describes",
                    "correct data.test=[...]",
                )
            test = self._reduced(whole.validate(files=False)).where(split="test")
            if not len(test):
                raise InputError(
                    f"The dataset {name} has no test split",
                    "leave it out of data.test=[...], or mark test videos in its source",
                )
            if test.table["label"].n_unique() < 2:
                only = "fake" if test.table["label"][0] else "real"
                raise InputError(
                    f"The test split of {name} has only {only} frames, so no AUC exists",
                    "complete it, or leave it out of data.test=[...]",
                )
            if (
                self.naming == "folder"
                and not group_by_folder(test.table)
                .group_by("video")
                .agg(pl.col("label").min())["label"]
                .max()
            ):
                raise InputError(
                    f"Every fake video of {name} bears the name of a real one, so by name alone "
                    "none is left (data.naming=folder, protocol="
                    f"{self.protocol})",
                    f"leave {name} out of data.test=[...], or set data.naming=id",
                )
            if both := self.training_files.intersection(test.files()):
                raise InputError(
                    f"{min(both)} is a training and a test frame of {name}",
                    "give each file to one of data.train and data.test",
                )
            tests[name] = test.validate()
        if not tests:
            raise InputError("No test dataset is left", "give one in data.test=[...]")
        return tests

    @functools.cached_property
    def training_files(self) -> frozenset[str]:
        """Every training and validation file of the training datasets, before any reduction."""
        return frozenset(self.own.where(dataset=self.train_names, split=["train", "val"]).files())

    def _reduced(self, manifest: Manifest) -> Manifest:
        """The manifest with as many videos, and frames of each, as are wanted."""
        kept = manifest.first(self.videos)
        if self.train_frames == self.frames:
            return kept.spread(self.frames, self.sampling)
        train, rest = (
            kept.where(split="train"),
            replace(kept, table=kept.table.filter(pl.col("split") != "train")),
        )
        parts = [
            train.spread(self.train_frames, self.sampling),
            rest.spread(self.frames, self.sampling),
        ]
        return replace(kept, table=pl.concat([part.table for part in parts]))

    @property
    def validation(self) -> Manifest:
        """The frames that choose the weights."""
        return self.training.where(split="val")

    @property
    def validations(self) -> dict[str, Manifest]:
        """What is scored after every epoch: the validation split (named by an empty word), then the test datasets where they are watched."""
        return {"": self.validation} | (self.tests if self.watched else {})

    @property
    def share(self) -> tuple[int, int]:
        """The rank of this process and the number of processes; (0, 1) without a trainer."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    @functools.cached_property
    def training_domains(self) -> list[str]:
        """The domains of domain batches in the order of their ids; none when batches are only shuffled."""
        if self.batches == "shuffle":
            return []
        return (
            self._domain(self.training.where(split="train")).drop_nulls().unique().sort().to_list()
        )

    def _domain(self, manifest: Manifest) -> pl.Series:
        """The name of each frame's domain; null for real frames that are dealt."""
        if self.domains == "manipulation":
            return manifest.table.select(
                pl.when(pl.col("label") == 1).then(pl.col("domain"))
            ).to_series()
        return manifest.table[self.domains].cast(pl.String)

    def train_dataloader(self) -> DataLoader[Frames]:
        """Augmented training frames in shuffled batches, or in batches of every domain; the first loader after a resumption begins at its position.

        Raises:
            InputError: a batch is too small for the domains or the processes, or a domain lacks a
                class.
        """
        manifest = self.training.where(split="train")
        dataset = FrameDataset(
            manifest, self.domain_names(manifest), self.size, self.augment, self.seed
        )
        rank, processes = self.share
        if self.batch_size < processes:
            raise InputError(
                f"data.batch_size={self.batch_size} is shared by {processes} processes",
                f"raise it to at least {processes}",
            )
        if self.batches == "shuffle":
            order = Shuffle(dataset.domain, self.batch_size, self.seed)
        else:
            names = self.training_domains
            domain = (
                self._domain(manifest)
                .cast(pl.Enum(names))
                .to_physical()
                .cast(pl.Int64)
                .fill_null(-1)
                .to_numpy()
            )
            order = EveryDomain(
                dataset.label, domain, names, self.batch_size, self.batches, self.seed
            )
            if order.repeats.max() > 1.5 or order.repeats.min() < 0.67:
                often = ", ".join(
                    f"{name} {fake:.2f} and {real:.2f}"
                    for name, (real, fake) in zip(names, order.repeats, strict=True)
                )
                log.info(
                    "Small domains are recycled, large ones not seen in full; an epoch shows each "
                    "fake and each real frame so often: %s.",
                    often,
                )
        batches = ProcessBatches(order, rank, processes)
        (batches.epoch, batches.start), self.position = self.position, (0, 0)
        return self.loader(dataset, batches, again=True)

    def val_dataloader(self) -> list[DataLoader[Frames]]:
        """The validation frames in the manifest's order and, where they are watched, the test datasets; of several processes, each has its share.

        Raises:
            InputError: there are more processes than frames.
        """
        rank, processes = self.share
        if (fewest := min(map(len, self.validations.values()))) < processes:
            raise InputError(
                f"{fewest} validation frames are shared by {processes} processes",
                "lower trainer.devices",
            )
        return [
            self._plain(manifest, rank, processes, again=True)
            for manifest in self.validations.values()
        ]

    def validation_loader(self) -> DataLoader[Frames]:
        """The validation frames in the manifest's order, all of them in every process."""
        return self._plain(self.validation)

    def test_loader(self, name: str, corruption: Corruption | None = None) -> DataLoader[Frames]:
        """The frames of one test dataset in the manifest's order, all of them in every process, as they are or corrupted."""
        return self._plain(self.tests[name], corruption=corruption)

    def domain_names(self, manifest: Manifest) -> list[str]:
        """Forgeries, and `real`, in the order of their ids."""
        return manifest.table["domain"].unique().sort().to_list()

    def _plain(
        self,
        manifest: Manifest,
        rank: int = 0,
        processes: int = 1,
        corruption: Corruption | None = None,
        again: bool = False,
    ) -> DataLoader[Frames]:
        return self.loader(
            FrameDataset(manifest, self.domain_names(manifest), self.size, corruption=corruption),
            None,
            rank,
            processes,
            again,
        )

    def loader(
        self,
        dataset: FrameDataset,
        batches: ProcessBatches | EndlessBatches | None,
        rank: int = 0,
        processes: int = 1,
        again: bool = False,
    ) -> DataLoader[Frames]:
        """The given batches, or all frames in the manifest's order, of which process `rank` has every `processes`-th.

        Args:
            again: it is run through more than once, so its processes stay.
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
            persistent_workers=again and self.workers > 0,
            pin_memory=torch.accelerator.is_available(),
            **order,
        )

    def state_dict(self) -> dict[str, Any]:
        """The epoch and the index of the batch that training goes on with; Lightning keeps them in checkpoints."""
        epoch, batch = self.position
        if self.trainer:
            loop: Any = self.trainer.fit_loop
            epochs, batches = loop.epoch_progress.current, loop.epoch_loop.batch_progress.current
            running = (
                epochs.started > epochs.processed
            )  # otherwise `batches` is that of the epoch before
            over = running and batches.processed >= self.trainer.num_training_batches
            epoch, batch = epochs.processed + over, batches.processed if running and not over else 0
        return {"epoch": epoch, "batch": batch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The next training loader begins there."""
        self.position = (state_dict["epoch"], state_dict["batch"])


def found(source: Scan, root: Path) -> Manifest:
    """The manifest that `fmsd extract` or `fmsd pack` wrote into a root, or else what a source finds there."""
    written = packaged.packaged_manifest(root)
    return entries.from_entries(source(root), root) if written is None else written


def moved(batch: Frames, device: torch.device) -> Frames:
    """A batch with pixels and labels on a device; domains and rows, which only steer, stay where they are read."""
    return batch._replace(
        image=batch.image.to(device, non_blocking=True),
        label=batch.label.to(device, non_blocking=True),
    )


@dataclass(frozen=True)
class TrainingBatches:
    """Batches of the training split outside of training, for a method that measures before it chooses.

    Args:
        device: where they are put.
        precision: context of forward passes.
        limit: at most so many per draw; None for no limit.
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
        return self.data.training.where(split="train")

    @property
    def domains(self) -> list[str]:
        """The forgeries among them."""
        return [domain for domain in self.data.domain_names(self.manifest) if domain != REAL]

    def draw(self, count: int, domain: str | None = None) -> Iterator[Frames]:
        """At most `count` shuffled, full batches, others at every call; with a domain, of its fakes and as many real frames, evenly spread."""
        whole = self.manifest
        chosen = whole
        if domain is not None:
            fakes, real = whole.table.filter(domain=domain), whole.table.filter(domain=REAL)
            places = (
                torch.linspace(0, real.height - 1, min(real.height, fakes.height))
                .round()
                .int()
                .tolist()
            )
            chosen = replace(whole, table=pl.concat([fakes, real[places]]))
        seed = int(
            np.random.SeedSequence([self.data.seed, next(self.draws), 1]).generate_state(1)[0]
        )  # other batches than training's first
        dataset = FrameDataset(
            chosen, self.data.domain_names(whole), self.data.size, self.data.augment, seed
        )
        loader = self.data.loader(
            dataset, EndlessBatches(Shuffle(dataset.domain, self.data.batch_size, seed))
        )
        for batch in itertools.islice(
            loader, count if self.limit is None else min(count, self.limit)
        ):
            yield moved(batch, self.device)

    def agreed(self, found: Any) -> Any:
        """What the first process found."""
        return agreed(found)
