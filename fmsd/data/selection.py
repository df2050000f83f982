"""Selection: which frames of which datasets are trained on, validated on and tested on."""

import functools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from fmsd.data import entries, prepared_folder
from fmsd.data import manifest as manifests
from fmsd.data import selection_checks as checks
from fmsd.data.frame import Entry
from fmsd.data.manifest import Manifest
from fmsd.data.name_overrides import as_name, as_names
from fmsd.errors import InputError
from fmsd.names import check_name

log = logging.getLogger(__name__)

Scan = Callable[[Path], Iterable[Entry]]
"""A source: yields the frames and videos below a root, and the problems of that copy."""

Names = int | str | Sequence[str | int]
"""One name or several, as the command line gives them."""


class Selection:
    """The frames of a training dataset and of its test datasets: scanned, filtered, split, checked.

    Args:
        name: the data's name, for messages.
        root: its folder.
        source: lists the frames under the root.
        train: datasets to train on, among those that the source yields.
        test: datasets to test on: those that the source yields, and the names in `others`.
        others: sources of test datasets that lie elsewhere.
        roots: the folders of those; a test dataset without a folder is skipped.
        manifest: a manifest written by `fmsd index`, read instead of scanning the root. A folder
            that `fmsd extract` or `fmsd pack` wrote brings its own.
        forgeries: domains of the fakes to train and test on; None for all. Real frames stay.
        compression: the compression to read where datasets hold several (`c23`, `c40`); frames
            without one stay.
        expected: number of videos of a complete copy by split (or `all`) and domain, for `fmsd
            doctor`.
        names: the meaning of video names, for `fmsd doctor`: `sources` that a video is made from
            (`033_097`), or `persons` that it shows (`id0_id1_0003`); None for no meaning.
        protocol: name of the next three rules, written into every result.
        sampling: how `frames` of a video are taken: `spread` evenly from its first to its last, or
            the `first` ones.
        naming: the key of a video within a dataset: its `id`, or the name of its `folder` alone,
            which merges equal names.
        video_score: the score of a video from its frames' probabilities: `mean`, `median`, `max`,
            or the mean of the highest k (`top5`).
        frames: largest number of frames per video; None for all.
        train_frames: the same for training videos alone; None for `frames`.
        videos: largest number of videos per split and domain, for a quick trial; None for all.
        val_fraction: share of the training videos held out for validation, in (0, 1), where the
            dataset has no validation split.
        train_forgeries: domains of the fakes to train and validate on, where the tests keep all:
            a specialist. None for all.
        left_out: a forgery that is not trained on and, with real frames, makes up the validation
            split; None for none.

    Raises:
        InputError: a setting is out of range or unknown.
    """

    def __init__(
        self,
        name: str | int,
        root: str | None,
        source: Scan,
        train: Names,
        test: Names,
        others: Mapping[str, Scan] | None = None,
        roots: Mapping[str, str | None] | None = None,
        manifest: str | None = None,
        forgeries: Names | None = None,
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
        train_forgeries: Names | None = None,
        left_out: str | int | None = None,
    ) -> None:
        self.name = as_name(name, "data.name")
        check_name(self.name, "data.name")
        self.root = root
        self.source = source
        self.train_names = as_names(train, "data.train")
        self.test_names = as_names(test, "data.test")
        self.others = {as_name(key, "data.others"): scan for key, scan in (others or {}).items()}
        self.roots = {as_name(key, "data.roots"): folder for key, folder in (roots or {}).items()}
        self.manifest = manifest
        self.forgeries = _names_or_none(forgeries, "data.forgeries")
        self.compression = None if compression is None else as_name(compression, "data.compression")
        self.expected = expected or {}
        self.names = names
        self.protocol = protocol
        self.sampling = sampling
        self.naming = naming
        self.video_score = video_score
        self.frames = frames
        self.train_frames = frames if train_frames is None else train_frames
        self.videos = videos
        self.val_fraction = val_fraction
        self.train_forgeries = _names_or_none(train_forgeries, "data.train_forgeries")
        self.left_out = None if left_out is None else as_name(left_out, "data.left_out")
        checks.check_limits(frames=frames, train_frames=train_frames, videos=videos)
        checks.check_share(val_fraction)
        checks.check_choice("sampling", sampling, ("spread", "first"))
        checks.check_choice("naming", naming, ("id", "folder"))
        checks.check_choice("names", names or "null", ("null", "sources", "persons"))

    @property
    def root_path(self) -> Path:
        """The root as an absolute path.

        Raises:
            InputError: there is no root.
        """
        if self.root is None:
            raise InputError(
                f"data={self.name} has no root", "give the dataset's folder as data.root=PATH"
            )
        return Path(self.root).expanduser().absolute()

    @property
    def stored_manifest(self) -> Manifest | None:
        """The manifest that is read instead of a scan; None where the root is scanned."""
        if self.manifest is None:
            return prepared_folder.prepared_manifest(self.root_path)
        return manifests.read_manifest(Path(self.manifest).expanduser(), self.root_path)

    @functools.cached_property
    def everything(self) -> Manifest:
        """All frames of the root after the filters of forgery and compression, not validated.

        Raises:
            InputError: a filter names a forgery or a compression that the root does not hold, or
                the crops in the root were sampled by another rule than the protocol's.
        """
        stored = self.stored_manifest
        if stored is None:
            stored = entries.from_entries(self.source(self.root_path), self.root_path)
        whole = checks.in_compression(
            stored, self.compression, [*self.train_names, *self.test_names]
        )
        checks.check_forgeries(whole, self.forgeries, self.name)
        checks.check_sampling(whole, self.sampling, self.protocol)
        return whole.only(self.forgeries)

    @functools.cached_property
    def training(self) -> Manifest:
        """The train and val splits of the training datasets, validated.

        Whether both classes occur in the train split is left to the loaders, which may make fakes
        of real frames.

        Raises:
            InputError: the datasets or forgeries to train on are not there, or frames are not fit.
        """
        checks.check_train_names(self.train_names, self.everything, self.name)
        chosen = self.everything.where(dataset=self.train_names).validate(files=False)
        parts = [self._with_validation_split(chosen, name) for name in self.train_names]
        whole = replace(chosen, table=pl.concat([part.table for part in parts]))
        sampled = self._sampled(whole).where(split=["train", "val"])
        checks.check_train_forgeries(sampled, self.train_forgeries)
        specialised = sampled.only(self.train_forgeries)
        if self.left_out is not None:
            specialised = leave_out(specialised, self.left_out)
        return specialised.validate()

    @functools.cached_property
    def validation(self) -> Manifest:
        """The frames that choose the weights.

        Raises:
            InputError: as `training`, or the split lacks a class.
        """
        checks.check_classes(self.training, "val", self.train_names)
        return self.training.where(split="val")

    @functools.cached_property
    def tests(self) -> dict[str, Manifest]:
        """The test split of every test dataset, validated; those in `skipped` are left out.

        Raises:
            InputError: a dataset is not there, cannot be tested on or shares a file with the
                training datasets, or none is left.
        """
        for name in self.skipped:
            override = f"{'' if name in self.roots else '+'}data.roots.{name}=PATH"
            log.warning(
                "The test dataset %s is skipped: its root is not given (%s).", name, override
            )
        tests = {name: self._test(name) for name in self.test_names if name not in self.skipped}
        if not tests:
            raise InputError("No test dataset is left", "give one in data.test=[...]")
        return tests

    @functools.cached_property
    def skipped(self) -> list[str]:
        """The test datasets that lie elsewhere and have no root."""
        held = self.everything.table["dataset"]
        return [
            name
            for name in self.test_names
            if name not in held and name in self.others and self.roots.get(name) is None
        ]

    @functools.cached_property
    def training_files(self) -> frozenset[str]:
        """Every training and validation file of the training datasets, before any reduction."""
        chosen = self.everything.where(dataset=self.train_names, split=["train", "val"])
        return frozenset(chosen.files())

    def _test(self, name: str) -> Manifest:
        """The test split of one dataset."""
        whole = self._test_dataset(name).validate(files=False)
        test = self._sampled(whole).where(split="test")
        checks.check_test_split(test, name)
        if self.naming == "folder":
            checks.check_folder_names(test, name, self.protocol)
        checks.check_disjoint(test, self.training_files, name)
        return test.validate()

    def _test_dataset(self, name: str) -> Manifest:
        """All frames of a test dataset, from this root or from one of its own."""
        if name in self.everything.table["dataset"]:
            return self.everything.where(dataset=name)
        if name not in self.others:
            raise InputError(
                f"data.test names {name}, which data={self.name} does not hold and no "
                f"conf/data/{name}.yaml describes",
                "correct data.test=[...]",
            )
        root = Path(str(self.roots[name])).expanduser().absolute()
        stored = load_or_scan(self.others[name], root)
        elsewhere = checks.in_compression(stored, self.compression, [name])
        checks.check_sampling(elsewhere, self.sampling, self.protocol)
        whole = elsewhere.where(dataset=name)
        if not len(whole):
            held = ", ".join(elsewhere.table["dataset"].unique().sort())
            raise InputError(
                f"{root} holds {held}, not {name}",
                f"correct data.roots.{name}=PATH, or the name in conf/data/{name}.yaml",
            )
        return whole

    def _with_validation_split(self, manifest: Manifest, name: str) -> Manifest:
        """One training dataset; training videos are held out where it has no validation split."""
        dataset = manifest.where(dataset=name)
        if len(dataset.where(split="val")):
            return dataset
        log.info(
            "%s has no validation split: %.0f %% of its training videos are held out for it.",
            name,
            100 * self.val_fraction,
        )
        return dataset.hold_out(self.val_fraction)

    def _sampled(self, manifest: Manifest) -> Manifest:
        """The manifest with `videos` per domain and `frames` (or `train_frames`) per video."""
        kept = manifest.first(self.videos)
        if self.train_frames == self.frames:
            return kept.sample_frames(self.frames, self.sampling)
        train = kept.where(split="train").sample_frames(self.train_frames, self.sampling)
        rest = replace(kept, table=kept.table.filter(pl.col("split") != "train"))
        rest = rest.sample_frames(self.frames, self.sampling)
        return replace(kept, table=pl.concat([train.table, rest.table]))


def load_or_scan(source: Scan, root: Path) -> Manifest:
    """The manifest that `fmsd extract` or `fmsd pack` wrote into a root, else a scan."""
    stored = prepared_folder.prepared_manifest(root)
    return entries.from_entries(source(root), root) if stored is None else stored


def leave_out(manifest: Manifest, forgery: str) -> Manifest:
    """Training data whose train split lacks a forgery and whose val split has no other forgery.

    Raises:
        InputError: the train split does not hold the forgery, or holds no other one.
    """
    checks.check_left_out(manifest, forgery)
    is_val, is_forgery = pl.col("split") == "val", pl.col("domain") == forgery
    kept = pl.when(is_val).then(is_forgery | (pl.col("label") == 0)).otherwise(~is_forgery)
    return replace(manifest, table=manifest.table.filter(kept))


def _names_or_none(given: Names | None, key: str) -> list[str] | None:
    return None if given is None else as_names(given, key)
