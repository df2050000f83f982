"""Any folder of images or videos whose path describes them.

For example `ROOT/train/Deepfakes/000_003/0001.png`, `ROOT/test/real/portrait.jpg` or
`ROOT/test/real/clip.mp4`.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from fmsd.data import name_overrides
from fmsd.data.frame import REAL, Entry, Frame, Problem, Split, Video, video_id
from fmsd.data.sources import labels
from fmsd.data.sources.layout import match_layout, parse_layout, should_hold_frames, video_name
from fmsd.data.sources.tree import (
    frameless_problem,
    read_folder,
    refuse_unreadable,
    walk_folders,
)
from fmsd.errors import InputError

log = logging.getLogger(__name__)

SPLITS: tuple[Split, ...] = get_args(Split)

SPLIT_GUESSES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""The split that the name of a folder, in lower case, suggests; a remedy proposes it."""

CLASS_WORDS = ("fake", "1_fake", "deepfake", "deepfakes", "manipulated", "forged", "synthetic")
"""Names of folders, in lower case, that mean a class rather than a split; a remedy uses them."""


@refuse_unreadable
def scan(
    root: Path,
    dataset: str | int,
    layout: str,
    splits: Mapping[Any, str],
    real: int | Sequence[str | int] | None = None,
    split: str | None = None,
    fake: int | Sequence[str | int] = (),
) -> Iterator[Entry]:
    """The images and videos under `root`, described by the folders of their paths.

    Args:
        dataset: the dataset's name, for a layout without `{dataset}`.
        layout: the levels of a path, made of `{dataset} {split} {domain} {compression} {video}`,
            e.g. `{split}/{domain}/{video}`. A level may also be a fixed name, or `*` for any, or
            have several fields: `{domain}_{video}`. The last level is a folder of frames or,
            without its suffix, a video file. Images directly in the `{domain}` folder are a video
            each.
        splits: the split of each split folder, e.g. `{validation: val}`.
        real: names of domain folders of real images; None for `real`, `original` and `0_real`.
            Every other domain folder names a forgery. The ids of videos in any but the first of
            them contain its name.
        split: the split of all images, for a layout without `{split}`.
        fake: names of forgeries that would be refused because they suggest real images.

    Raises:
        InputError: a missing or unreadable root, an invalid layout, folders that do not fit the
            layout or the splits, a name that leaves it open whether its images are real, or a
            dataset without real images.
    """
    if not root.is_dir():
        raise InputError(
            f"There is no folder {root}", "give the dataset's folder as data.root=PATH"
        )
    levels = parse_layout(layout, split, SPLITS)
    given = None if real is None else name_overrides.as_names(real, "data.source.real")
    real_folders = list(labels.DEFAULT_REAL_FOLDERS) if given is None else given
    fakes = name_overrides.as_names(fake, "data.source.fake")
    if both := [name for name in fakes if name in real_folders]:
        raise InputError(
            f"data.source.real and data.source.fake both name {both[0]}", "leave it in one of them"
        )
    if REAL in fakes:
        raise InputError(
            f"data.source.fake names {REAL}, the domain of real images", "rename that folder"
        )
    tree = _Tree(root, str(dataset), layout, levels, _parse_splits(splits), split, real_folders, {})
    for place, (subfolders, images, videos, problems) in walk_folders(root):
        parts = place.relative_to(root).parts
        yield from problems
        for name in videos:
            fields = tree.read_path(place / name, (*parts, Path(name).stem))
            yield Video(place / name, None, **tree.describe(fields, video_name(fields, name)))
        if not (subfolders or images or videos) and should_hold_frames(parts, levels):
            yield frameless_problem(place)
        if not images:
            continue
        fields = tree.read_path(place, parts)
        for index, file in enumerate(images):
            yield Frame(
                path=place / file,
                index=index if "video" in fields else 0,
                **tree.describe(fields, video_name(fields, file)),
            )
    yield from _check_names(root, tree.domains, real_folders, fakes, given)


@dataclass(frozen=True)
class _Tree:
    """Describes the files of a tree by the layout and mappings of the user.

    Args:
        dataset, layout, split, real_folders: as of `scan`.
        levels: the levels of the layout.
        split_of: the split of each split folder.
        domains: the domain folders of each dataset, filled as paths are read.
    """

    root: Path
    dataset: str
    layout: str
    levels: Sequence[str]
    split_of: Mapping[str, Split]
    split: str | None
    real_folders: Sequence[str]
    domains: dict[str, set[str]]

    def read_path(self, path: Path, parts: Sequence[str]) -> dict[str, str]:
        """The fields of a path.

        Args:
            parts: the path below the root, without a file's suffix.

        Raises:
            InputError: the path does not fit the layout, or its split is unknown.
        """
        fields = match_layout(parts, self.levels)
        if fields is None:
            raise InputError(
                f"{path} does not fit the layout {self.layout!r}",
                f"set data.source.layout, or move it out of {self.root}",
            )
        if "split" in fields and fields["split"] not in self.split_of:
            raise _unknown_split(self.root, parts, self.levels, fields["split"], self.split_of)
        self.domains.setdefault(fields.get("dataset", self.dataset), set()).add(fields["domain"])
        return fields

    def describe(self, fields: Mapping[str, str], name: str) -> dict[str, Any]:
        """The arguments of a frame or video that its path determines.

        Args:
            name: of its video, within its domain folder.
        """
        folder = fields["domain"]
        real = folder in self.real_folders
        domain = REAL if real else folder
        if real and folder != self.real_folders[0]:
            name = f"{folder}/{name}"
        dataset = fields.get("dataset", self.dataset)
        compression = fields.get("compression", "")
        split = self.split_of[fields["split"]] if "split" in fields else cast(Split, self.split)
        return {
            "label": 0 if real else 1,
            "dataset": dataset,
            "domain": domain,
            "video": video_id(dataset, domain, compression, name),
            "split": split,
            "compression": compression,
        }


def _parse_splits(given: Mapping[Any, str]) -> dict[str, Split]:
    """The split of each split folder.

    Raises:
        InputError: a value is not a split.
    """
    split_of = {
        name_overrides.as_name(folder, "data.source.splits"): split
        for folder, split in given.items()
    }
    for folder, split in split_of.items():
        if split not in SPLITS:
            raise InputError(
                f"data.source.splits.{folder}={split} is no split",
                f"choose one of {', '.join(SPLITS)}",
            )
    return cast(dict[str, Split], split_of)


def _unknown_split(
    root: Path,
    parts: Sequence[str],
    levels: Sequence[str],
    name: str,
    split_of: Mapping[str, Split],
) -> InputError:
    """The error for an unknown split folder; proposes a split for it and those beside it."""
    depth = next(depth for depth, level in enumerate(levels) if "{split}" in level)
    place = root.joinpath(*parts[: depth + 1])
    beside = read_folder(place.parent).folders if levels[depth] == "{split}" else [name]
    unknown = [folder for folder in dict.fromkeys((name, *beside)) if folder not in split_of]
    words = {*labels.DEFAULT_REAL_FOLDERS, *CLASS_WORDS}
    if levels[0] == "{split}" and {folder.strip().casefold() for folder in unknown} <= words:
        return InputError(
            f"{place} names a class, where data.source.layout has {{split}}",
            "for folders of classes without splits, give "
            "'data.source.layout=\"{domain}/{video}\"' data.source.split=test (or train, val)",
        )
    proposed = {
        folder: SPLIT_GUESSES.get(folder.strip().casefold(), "|".join(SPLITS)) for folder in unknown
    }
    additions = [
        name_overrides.entry_override("data.source.splits", folder, split)
        for folder, split in proposed.items()
    ]
    remedy = (
        "rename it, as its name cannot be written as a key"
        if additions[0] is None
        else f"add it with {' '.join(filter(None, additions))}"
    )
    return InputError(f"{place} is in no known split ({', '.join(split_of)})", remedy)


def _check_names(
    root: Path,
    domains: Mapping[str, set[str]],
    real_folders: Sequence[str],
    fakes: Sequence[str],
    given: Sequence[str] | None,
) -> Iterator[Problem]:
    """Checks the names of domain folders after all have been seen; yields names without a folder.

    Args:
        domains: the domain folders of each dataset.
        given: the `real` of the user, None for the default.

    Raises:
        InputError: a dataset has no real images, or a folder leaves it open whether it is real.
    """
    present = sorted(set().union(*domains.values()))
    present_real = [name for name in real_folders if name in present]
    doubtful = [
        name
        for name in present
        if name not in (*real_folders, *fakes) and labels.suggests_real(name, real_folders)
    ]
    for dataset, folders in domains.items():
        if not folders & set(real_folders):
            of = "" if len(domains) == 1 else f" of the dataset {dataset}"
            candidates = [name for name in doubtful if name in folders]
            example = (
                ", if these are: "
                f"{name_overrides.list_override('data.source.real', [*present_real, *candidates])}"
                if candidates
                else "=[NAME], quoted for the shell"
            )
            raise InputError(
                f"None of the folders {_listed(sorted(folders))}{of} holds real images",
                f"name them in data.source.real{example}",
            )
    if doubtful:
        present_fake = [name for name in fakes if name in present]
        real, fake = [*present_real, *doubtful], [*present_fake, *doubtful]
        as_real = name_overrides.list_override("data.source.real", real)
        as_fake = (
            "rename them"
            if REAL in doubtful
            else name_overrides.list_override("data.source.fake", fake)
        )
        raise InputError(
            f"The names of the folders {_listed(doubtful)} of {root} suggest real images, but "
            "they are not in data.source.real",
            f"if they are real, give {as_real}; if forgeries, {as_fake}",
        )
    log.info(
        "%s: real images in %s; forgeries in %s.",
        root,
        _listed(present_real),
        _listed([name for name in present if name not in real_folders]),
    )
    for key, names in (("real", given or ()), ("fake", fakes)):
        for name in names:
            if name not in present:
                yield Problem(
                    "unmatched",
                    f"data.source.{key} names {name!r}, but no folder of {root} has this name",
                    "correct it, or leave it out",
                )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
