"""Checks of a selection against the data: names that are present, splits that can be used."""

from collections.abc import Sequence

import polars as pl

from fmsd.data import prepared_folder
from fmsd.data.frame import REAL
from fmsd.data.manifest import Manifest
from fmsd.errors import InputError


def in_compression(
    manifest: Manifest, compression: str | None, datasets: Sequence[str]
) -> Manifest:
    """The frames of a manifest in one compression, and those without any.

    Crops of several compressions that were extracted into one folder are not mixed unless
    `compression` is `all`.

    Args:
        compression: its name, `all`, or None where there is nothing to choose.
        datasets: the datasets in use; others may hold what they like.

    Raises:
        InputError: a dataset does not hold the compression, or holds several of which none was
            chosen.
    """
    if compression == "all":
        return manifest
    for name in datasets:
        levels = manifest.where(dataset=name).table["compression"].unique().sort()
        present = [level for level in levels if level]
        if (
            len(present) > 1
            and compression is None
            and prepared_folder.crop_settings(manifest.root) is not None
        ):
            raise InputError(
                f"{manifest.root} holds {name} in the compressions {', '.join(present)}",
                "choose one with data.compression=NAME, or all",
            )
        if present and compression not in (None, *present):
            raise InputError(
                f"data.compression={compression} is asked for, but {manifest.root} holds "
                f"{name} in {', '.join(present)}",
                f"correct it, or leave {name} out of data.train=[...] and data.test=[...]",
            )
    return manifest.only(compression=compression)


def check_forgeries(manifest: Manifest, forgeries: Sequence[str] | None, data: str) -> None:
    """Refuses forgeries to select that a manifest does not hold."""
    known = manifest.table["domain"].unique().sort().to_list()
    if unknown := [name for name in forgeries or () if name not in known or name == REAL]:
        present = ", ".join(name for name in known if name != REAL)
        raise InputError(
            f"data.forgeries names {', '.join(unknown)}, but data={data} holds {present}",
            "correct data.forgeries=[...]",
        )


def check_sampling(manifest: Manifest, sampling: str, protocol: str) -> None:
    """Refuses crops whose frames were sampled by another rule than the protocol's."""
    crops = prepared_folder.crop_settings(manifest.root)
    if crops is not None and crops["frames"] is not None and crops["sampling"] != sampling:
        kind = {"spread": "evenly spread frames", "first": "the first frames"}
        raise InputError(
            f"{manifest.root} holds {kind[crops['sampling']]} of each video, but the protocol "
            f"{protocol} wants {kind[sampling]}",
            f"make them with fmsd extract sampling={sampling} out=FOLDER",
        )


def check_train_names(names: Sequence[str], manifest: Manifest, data: str) -> None:
    """Refuses training datasets that a manifest does not hold, and no training dataset at all."""
    known = manifest.table["dataset"].unique().sort().to_list()
    if not names:
        raise InputError(
            f"data={data} names no dataset to train on",
            f"choose from {', '.join(known)} in data.train=[...]",
        )
    if unknown := [name for name in names if name not in known]:
        raise InputError(
            f"data.train names {', '.join(unknown)}, but data={data} holds {', '.join(known)}",
            "correct data.train=[...]",
        )


def check_train_forgeries(manifest: Manifest, forgeries: Sequence[str] | None) -> None:
    """Refuses forgeries to train on that the training data does not hold."""
    known = forgeries_of(manifest)
    if unknown := [name for name in forgeries or () if name not in known]:
        raise InputError(
            f"data.train_forgeries names {', '.join(unknown)}, but the training data holds "
            f"{', '.join(known)}",
            "correct it, or leave it out",
        )


def check_left_out(manifest: Manifest, forgery: str) -> None:
    """Refuses to leave out a forgery that the train split does not hold, or its only one."""
    known = forgeries_of(manifest.where(split="train"))
    if forgery not in known or len(known) < 2:
        raise InputError(
            f"data.left_out={forgery} leaves a forgery out of the training data, which "
            f"holds {', '.join(known)}",
            "name one of several",
        )


def check_classes(manifest: Manifest, split: str, datasets: Sequence[str]) -> None:
    """Refuses a split for training or validation that lacks real or fake frames."""
    labels = manifest.where(split=split).table["label"].unique().to_list()
    if len(labels) < 2:
        present = "no" if not labels else "only fake" if labels[0] else "only real"
        raise InputError(
            f"The {split} split of {', '.join(datasets)} has {present} frames",
            "a detector needs real and fake ones in it (where validation videos are held out, "
            "those whose names share the part before the first _ go together)",
        )


def check_test_split(test: Manifest, name: str) -> None:
    """Refuses a test split that is empty or holds one class only."""
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


def check_folder_names(test: Manifest, name: str, protocol: str) -> None:
    """Refuses a test split where every fake video has the folder name of a real one.

    A video that is grouped by its folder's name counts as real if any of its frames is.
    """
    videos = test.table.select("label", folder=pl.col("video").str.extract(r"([^/]+)$"))
    real, fake = set(videos.filter(label=0)["folder"]), set(videos.filter(label=1)["folder"])
    if fake <= real:
        raise InputError(
            f"Every fake video of {name} bears the name of a real one, so by name alone "
            f"none is left (data.naming=folder, protocol={protocol})",
            f"leave {name} out of data.test=[...], or set data.naming=id",
        )


def check_disjoint(test: Manifest, training_files: frozenset[str], name: str) -> None:
    """Refuses a test split that shares a file with the training datasets."""
    if both := training_files.intersection(test.files()):
        raise InputError(
            f"{min(both)} is a training and a test frame of {name}",
            "give each file to one of data.train and data.test",
        )


def forgeries_of(manifest: Manifest) -> list[str]:
    """The domains of the fake frames of a manifest, sorted."""
    return manifest.table.filter(label=1)["domain"].unique().sort().to_list()
