"""Any folder of images or videos whose path says what they are.

For example `ROOT/train/Deepfakes/000_003/0001.png`, `ROOT/test/real/portrait.jpg` or
`ROOT/test/real/clip.mp4`.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args

from fmsd.data import overrides
from fmsd.data.frame import REAL, Entry, Frame, Problem, Split, Video, video_id
from fmsd.data.sources import labels
from fmsd.data.sources.tree import SIDE, contents, readable, walk, without_frames
from fmsd.errors import InputError

log = logging.getLogger(__name__)

FIELDS = ("dataset", "split", "domain", "compression", "video")

SPLITS: tuple[Split, ...] = get_args(Split)

MEANT: dict[str, Split] = {
    **{"train": "train", "training": "train"},
    **{"val": "val", "valid": "val", "validation": "val", "dev": "val"},
    **{"test": "test", "testing": "test"},
}
"""Which split a folder's name in any case suggests, to propose it."""


@readable
def scan(
    root: Path,
    dataset: str | int,
    layout: str,
    splits: Mapping[Any, str],
    real: int | Sequence[str | int] | None = None,
    split: str | None = None,
    fake: int | Sequence[str | int] = (),
) -> Iterator[Entry]:
    """The images and videos under `root`, described by the folders they lie in.

    Args:
        dataset: the dataset's name, where the layout does not tell it.
        layout: what each folder level is, made of `{dataset} {split} {domain} {compression}
            {video}`, e.g. `{split}/{domain}/{video}`. A level may also be a fixed name, or `*` for
            any, or hold several fields: `{domain}_{video}`. The last level is a folder of frames
            or, without its ending, a video file. Images that lie directly in the `{domain}` folder
            are a video each.
        splits: what each split folder stands for, e.g. `{validation: val}`.
        real: names of domain folders that hold real images; `real`, `original` and `0_real` when
            not given. Every other domain folder names a forgery. Videos of the second name on bear
            it in their ids.
        split: the split of all images, where the layout does not tell it.
        fake: names of forgeries that would be refused because they suggest real images.

    Raises:
        InputError: a missing or unreadable root, a layout that cannot be used, folders that it and
            its mappings do not explain or whose name leaves it open whether they are real, or a
            dataset in which nothing is real.
    """
    if not root.is_dir():
        raise InputError(
            f"There is no folder {root}", "give the dataset's folder as data.root=PATH"
        )
    levels = _levels(layout, split)
    given = None if real is None else overrides.as_names(real, "data.source.real")
    reals, fakes = (
        given if given is not None else list(labels.REALS),
        overrides.as_names(fake, "data.source.fake"),
    )
    if both := [name for name in fakes if name in reals]:
        raise InputError(
            f"data.source.real and data.source.fake both name {both[0]}", "leave it in one of them"
        )
    if REAL in fakes:
        raise InputError(
            f"data.source.fake names {REAL}, the domain of what is real", "rename that folder"
        )
    split_of = _splits(splits)
    domains: dict[str, set[str]] = {}

    def described(path: Path, parts: Sequence[str]) -> dict[str, str]:
        found = _parse(parts, levels)
        if found is None:
            raise InputError(
                f"{path} does not fit the layout {layout!r}",
                f"set data.source.layout, or move it out of {root}",
            )
        if "split" in found and found["split"] not in split_of:
            raise _no_split(root, parts, levels, found["split"], split_of)
        domains.setdefault(found.get("dataset", str(dataset)), set()).add(found["domain"])
        return found

    def about(found: Mapping[str, str], name: str) -> dict[str, Any]:
        named = found["domain"] in reals
        domain, own = (
            (REAL, name if found["domain"] == reals[0] else f"{found['domain']}/{name}")
            if named
            else (found["domain"], name)
        )
        home, quality = found.get("dataset", str(dataset)), found.get("compression", "")
        kind: Split = split_of[found["split"]] if "split" in found else cast(Split, split)
        described = {
            "label": 0 if named else 1,
            "dataset": home,
            "domain": domain,
            "split": kind,
            "compression": quality,
        }
        return described | {"video": video_id(home, domain, quality, own)}

    for place, (subfolders, images, films, problems) in walk(root):
        parts = place.relative_to(root).parts
        yield from problems
        for name in films:
            found = described(place / name, (*parts, Path(name).stem))
            yield Video(place / name, None, **about(found, _video(found, name)))
        if not (subfolders or images or films) and _empty(parts, levels):
            yield without_frames(place)
        if not images:
            continue
        found = described(place, parts)
        for index, file in enumerate(images):
            yield Frame(
                path=place / file,
                index=index if "video" in found else 0,
                **about(found, _video(found, file)),
            )
    yield from _checked(root, domains, reals, fakes, given)


def _levels(layout: str, split: str | None) -> list[str]:
    """The levels of a layout.

    Raises:
        InputError: it has unknown, repeated or missing fields, or the split is given twice, not at
            all or is unknown.
    """
    named = re.findall(r"{(\w+)}", layout)
    if unknown := set(named) - set(FIELDS):
        raise InputError(
            f"The layout {layout!r} has unknown fields {sorted(unknown)}",
            f"use {', '.join('{' + field + '}' for field in FIELDS)}",
        )
    if again := sorted({field for field in named if named.count(field) > 1}):
        raise InputError(
            f"The layout {layout!r} holds {', '.join('{' + field + '}' for field in again)} more "
            "than once",
            "write * for what does not matter",
        )
    if "domain" not in named:
        raise InputError(
            f"The layout {layout!r} does not tell the domain",
            "write {domain} in data.source.layout for the level that tells real from fake",
        )
    if "split" not in named and split is None:
        raise InputError(
            f"The layout {layout!r} does not tell the split",
            "add {split} to it, or give all files one: data.source.split=train, val or test",
        )
    if "split" in named and split is not None:
        raise InputError(
            f"The layout {layout!r} tells the split, and so does data.source.split={split}",
            "leave data.source.split out",
        )
    if split is not None and split not in SPLITS:
        raise InputError(
            f"data.source.split={split} is no split", f"choose one of {', '.join(SPLITS)}"
        )
    return layout.strip("/").split("/")


def _splits(given: Mapping[Any, str]) -> dict[str, Split]:
    """What each split folder stands for.

    Raises:
        InputError: no split that there is.
    """
    split_of = {
        overrides.as_name(folder, "data.source.splits"): split for folder, split in given.items()
    }
    if odd := [folder for folder, split in split_of.items() if split not in SPLITS]:
        raise InputError(
            f"data.source.splits.{odd[0]}={split_of[odd[0]]} is no split",
            f"choose one of {', '.join(SPLITS)}",
        )
    return cast(dict[str, Split], split_of)


def _no_split(
    root: Path,
    parts: Sequence[str],
    levels: Sequence[str],
    name: str,
    split_of: Mapping[str, Split],
) -> InputError:
    """The refusal of a split folder, which proposes a split for it and for the unknown ones beside it."""
    level = next(number for number, level in enumerate(levels) if "{split}" in level)
    place = root.joinpath(*parts[: level + 1])
    beside = contents(place.parent).folders if levels[level] == "{split}" else [name]
    unknown = [folder for folder in dict.fromkeys((name, *beside)) if folder not in split_of]
    proposed = {
        folder: MEANT.get(folder.strip().casefold(), "|".join(SPLITS)) for folder in unknown
    }
    words = [
        overrides.entry("data.source.splits", folder, split) for folder, split in proposed.items()
    ]
    remedy = (
        "rename it, as its name cannot be written as a key"
        if words[0] is None
        else f"add it with {' '.join(filter(None, words))}"
    )
    return InputError(f"{place} is in no known split ({', '.join(split_of)})", remedy)


def _checked(
    root: Path,
    domains: Mapping[str, set[str]],
    reals: Sequence[str],
    fakes: Sequence[str],
    given: Sequence[str] | None,
) -> Iterator[Problem]:
    """What is wrong with the names that the user gave, where all folders have been seen.

    Args:
        domains: the domain folders of each dataset.
        given: what the user named real, if anything.

    Raises:
        InputError: nothing in a dataset is real, or a folder leaves it open whether it is.
    """
    held = sorted(set().union(*domains.values()))
    found = [name for name in reals if name in held]
    doubtful = [
        name for name in held if name not in (*reals, *fakes) and labels.sounds_real(name, reals)
    ]
    for dataset, own in domains.items():
        if not own & set(reals):
            of = "" if len(domains) == 1 else f" of the dataset {dataset}"
            meant = [*found, *(name for name in doubtful if name in own)]
            example = (
                f", if these are: {overrides.listing('data.source.real', meant)}"
                if meant[len(found) :]
                else "=[NAME], quoted for the shell"
            )
            raise InputError(
                f"None of the folders {sorted(own)}{of} holds real images",
                f"name them in data.source.real{example}",
            )
    if doubtful:
        real, fake = [*found, *doubtful], [*(name for name in fakes if name in held), *doubtful]
        forged = "rename them" if REAL in doubtful else overrides.listing("data.source.fake", fake)
        raise InputError(
            f"The names of the folders {doubtful} of {root} suggest real images, but they are not "
            "named as real",
            f"if they are real, give {overrides.listing('data.source.real', real)}; if forgeries, "
            f"{forged}",
        )
    log.info(
        "%s: %s hold real images, %s are forgeries.",
        root,
        found or "none",
        [name for name in held if name not in reals] or "none",
    )
    for key, wanted in (("real", given or ()), ("fake", fakes)):
        for name in wanted:
            if name not in held:
                yield Problem(
                    "unmatched",
                    f"data.source.{key} names {name!r}, but no folder of {root} is called so",
                    "correct it, or leave it out",
                )


def _empty(parts: Sequence[str], levels: Sequence[str]) -> bool:
    """Whether a folder that holds no frames should hold some by the layout."""
    named = min(
        len(parts), len(levels)
    )  # a folder further down is that of a video without frames, too
    return (
        named > 0
        and _parse(parts[:named], levels[:named]) is not None
        and not any(part.lower() in SIDE for part in parts)
    )


def _parse(parts: Sequence[str], levels: Sequence[str]) -> dict[str, str] | None:
    """Field values of a path, or None if it does not fit; the video level may be missing."""
    if len(parts) == len(levels) - 1 and levels[-1] == "{video}":
        levels = levels[:-1]
    if len(parts) != len(levels):
        return None
    found: dict[str, str] = {}
    for part, level in zip(parts, levels, strict=True):
        if level == "*":
            found["*"] = "/".join(filter(None, (found.get("*"), part)))
            continue
        match = re.fullmatch(re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+?)", re.escape(level)), part)
        if match is None:
            return None
        found |= match.groupdict()
    return found


def _video(found: Mapping[str, str], file: str) -> str:
    """A video's name within its domain.

    It holds what `*` stood for, so that equal names under two folders stay two videos; that of a
    lone image also holds its split, as they often share names like `0001.jpg` across splits.
    """
    parts = (
        (found.get("*"), found["video"])
        if "video" in found
        else (found.get("*"), found.get("split"), file)
    )
    return "/".join(filter(None, parts))
