"""The frames of a selection: scanned or read from a manifest, filtered, split and checked.

What reads the disk is a function, called once; its result is a frozen value.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from fmsd.data import entries, selection_checks
from fmsd.data import manifest as manifests
from fmsd.data.manifest import Manifest
from fmsd.data.mirror import root_folder
from fmsd.data.prepared_folder import prepared_manifest
from fmsd.data.selection import Scan, Selection
from fmsd.errors import InputError
from fmsd.paths import expand_home

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingSplits:
    """The train and the val split of the training datasets.

    Args:
        train: the frames to train on.
        validation: the frames that choose the weights.
    """

    train: Manifest
    validation: Manifest

    @property
    def both(self) -> Manifest:
        """The frames of both splits."""
        return replace(self.train, table=pl.concat([self.train.table, self.validation.table]))


def read_stored_manifest(selection: Selection) -> Manifest | None:
    """The manifest that is read instead of a scan; None where the root is scanned.

    Raises:
        InputError: there is no root, or the manifest is missing or damaged.
    """
    if selection.manifest is None:
        return prepared_manifest(selection.root_path)
    return manifests.read_manifest(expand_home(selection.manifest), selection.root_path)


def load_or_scan(source: Scan, root: Path) -> Manifest:
    """The manifest that `fmsd extract` or `fmsd pack` wrote into a root, else a scan."""
    stored = prepared_manifest(root)
    return entries.from_entries(source(root), root) if stored is None else stored


def list_frames(selection: Selection) -> Manifest:
    """All frames of the root after the filters of forgery and compression, not validated.

    Raises:
        InputError: a filter names a forgery or a compression that the root does not hold, or the
            crops in the root were sampled by another rule than the protocol's.
    """
    stored, root = read_stored_manifest(selection), selection.root_path
    if stored is None:
        stored = entries.from_entries(selection.source(root), root)
    whole = selection_checks.in_compression(
        stored, selection.compression, [*selection.train, *selection.test]
    )
    selection_checks.check_forgeries(whole, selection.forgeries, selection.name)
    selection_checks.check_sampling(whole, selection.sampling, selection.protocol)
    return whole.only(selection.forgeries)


def load_training_splits(selection: Selection, listed: Manifest) -> TrainingSplits:
    """The train and val splits of the training datasets, validated; their files exist.

    Whether a split holds both classes is not checked: with augment=sbi, fakes are made of real
    frames later.

    Args:
        listed: the frames of the root, see `list_frames`.

    Raises:
        InputError: the root does not hold the datasets or forgeries to train on, or a frame fails
            `Manifest.validate`.
    """
    selection_checks.check_train_names(selection.train, listed, selection.name)
    chosen = listed.where(dataset=selection.train).validate(files=False)
    parts = [_with_validation_split(selection, chosen, name).table for name in selection.train]
    sampled = _sample(selection, replace(chosen, table=pl.concat(parts)))
    sampled = sampled.where(split=["train", "val"])
    selection_checks.check_train_forgeries(sampled, selection.train_forgeries)
    specialised = sampled.only(selection.train_forgeries)
    if selection.left_out is not None:
        specialised = leave_out(specialised, selection.left_out)
    both = specialised.validate()
    return TrainingSplits(both.where(split="train"), both.where(split="val"))


def load_test_datasets(selection: Selection, listed: Manifest) -> dict[str, Manifest]:
    """The test split of every test dataset, validated; warns of each dataset that is skipped.

    Args:
        listed: the frames of the root, see `list_frames`.

    Raises:
        InputError: a dataset is not there, cannot be tested on or shares a file with the training
            datasets, none is left, or one has no root and the selection refuses that.
    """
    skipped = skipped_datasets(selection, listed)
    given = {
        name: f"{'' if name in selection.roots else '+'}data.roots.{name}=PATH" for name in skipped
    }
    if skipped and selection.absent == "refuse":
        raise InputError(
            f"The roots of the test datasets {', '.join(skipped)} are not given",
            f"give {' '.join(given.values())}, or skip them by data.absent=skip",
        )
    for name, override in given.items():
        log.warning("The test dataset %s is skipped: it has no root (%s).", name, override)
    if skipped and selection.suite is not None:
        log.warning(
            "The suite %s is incomplete: %d of its %d datasets are tested.",
            selection.suite,
            len(selection.test) - len(skipped),
            len(selection.test),
        )
    # every training and validation file, also of videos and frames that a limit leaves out
    training_files = frozenset(
        listed.where(dataset=selection.train, split=["train", "val"]).files()
    )
    tests = {
        name: _load_test_dataset(selection, listed, name, training_files)
        for name in selection.test
        if name not in skipped
    }
    if not tests:
        raise InputError(
            "No test dataset is left",
            f"give the root of one: {' '.join(given.values())}"
            if given
            else "give one in data.test=[...]",
        )
    return tests


def skipped_datasets(selection: Selection, listed: Manifest) -> list[str]:
    """The test datasets that lie elsewhere and have no root."""
    present = listed.table["dataset"]
    return [
        name
        for name in selection.test
        if name not in present and name in selection.others and selection.roots.get(name) is None
    ]


def leave_out(manifest: Manifest, forgery: str) -> Manifest:
    """Training data whose train split lacks a forgery and whose val split has no other forgery.

    Raises:
        InputError: the train split does not hold the forgery, or holds no other one.
    """
    selection_checks.check_left_out(manifest, forgery)
    is_val, is_forgery = pl.col("split") == "val", pl.col("domain") == forgery
    kept = pl.when(is_val).then(is_forgery | (pl.col("label") == 0)).otherwise(~is_forgery)
    return replace(manifest, table=manifest.table.filter(kept))


def _load_test_dataset(
    selection: Selection, listed: Manifest, name: str, training_files: frozenset[str]
) -> Manifest:
    """The test split of one dataset."""
    whole = _list_test_dataset(selection, listed, name).validate(files=False)
    test = _sample(selection, whole).where(split="test")
    selection_checks.check_test_split(test, name)
    if selection.naming == "folder":
        selection_checks.check_folder_names(test, name, selection.protocol)
    selection_checks.check_disjoint(test, training_files, name)
    return test.validate()


def _list_test_dataset(selection: Selection, listed: Manifest, name: str) -> Manifest:
    """All frames of a test dataset, from the root of the data or from one of its own."""
    if name in listed.table["dataset"]:
        return listed.where(dataset=name)
    if name not in selection.others:
        raise InputError(
            f"data.test names {name}, which data={selection.name} does not hold and no "
            f"conf/data/{name}.yaml describes",
            "correct data.test=[...]",
        )
    root = root_folder(str(selection.roots[name]))
    stored = load_or_scan(selection.others[name], root)
    elsewhere = selection_checks.in_compression(stored, selection.compression, [name])
    selection_checks.check_sampling(elsewhere, selection.sampling, selection.protocol)
    whole = elsewhere.where(dataset=name)
    if not len(whole):
        present = ", ".join(elsewhere.table["dataset"].unique().sort())
        raise InputError(
            f"{root} holds {present}, not {name}",
            f"correct data.roots.{name}=PATH, or the name in conf/data/{name}.yaml",
        )
    return whole


def _with_validation_split(selection: Selection, manifest: Manifest, name: str) -> Manifest:
    """One training dataset; training videos are held out where it has no validation split."""
    dataset = manifest.where(dataset=name)
    if len(dataset.where(split="val")):
        return dataset
    log.info(
        "%s has no validation split: %.0f %% of its training videos are held out for it.",
        name,
        100 * selection.val_fraction,
    )
    return dataset.hold_out(selection.val_fraction)


def _sample(selection: Selection, manifest: Manifest) -> Manifest:
    """The manifest with `videos` per domain and `frames` (or `train_frames`) per video."""
    frames, sampling = selection.frames, selection.sampling
    kept = manifest.first(selection.videos)
    if selection.frames_to_train == frames:
        return kept.sample_frames(frames, sampling)
    train = kept.where(split="train").sample_frames(selection.frames_to_train, sampling)
    rest = replace(kept, table=kept.table.filter(pl.col("split") != "train"))
    rest = rest.sample_frames(frames, sampling)
    return replace(kept, table=pl.concat([train.table, rest.table]))
