"""DF40 (Yan et al., NeurIPS 2024 Datasets and Benchmarks, arXiv 2406.13495): forty forgery methods in its official trees, or by its JSON files.

    ROOT/DF40/METHOD/{ff,cdf}/frames/VIDEO/*.png            test; whole-face synthesis without `frames`, and in Celeb-DF's folders below `cdf`
    ROOT/DF40/METHOD/{fake,real}/...                        test; the methods that bring their own real images
    ROOT/DF40_train/METHOD/frames/VIDEO/*.png               training, made from FaceForensics++ alone
    ROOT/FaceForensics++/..., ROOT/Celeb-DF-v2/...          the real videos of `ff` and `cdf`
    ROOT/dataset_json/METHOD_{ff,cdf}.json, METHOD.json     its lists

The domain of a fake is its method. An origin is where a method's real images come from: `ff`,
`cdf`, or its `own`. A folder of images is a video; images that lie directly in `fake`, `real`,
`ff`, `cdf` or `inversions` are a video each.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

from fmsd.data import overrides
from fmsd.data.frame import REAL, Entry, Frame, Problem, Split, Video, video_id
from fmsd.data.sources import celebdf, deepfakebench, ffpp
from fmsd.data.sources import labels as words
from fmsd.data.sources.tree import (
    FILES,
    FRAMES,
    SIDE,
    clips,
    contents,
    listing,
    readable,
    twice,
    walk,
    without_frames,
)
from fmsd.data.spelling import absent, matched
from fmsd.errors import InputError

FAMILIES: dict[str, tuple[str, ...]] = {
    "FS": (
        "fsgan",
        "faceswap",
        "simswap",
        "inswap",
        "blendface",
        "uniface",
        "mobileswap",
        "e4s",
        "facedancer",
        "deepfacelab",
    ),
    "FR": (
        *(
            "fomm",
            "facevid2vid",
            "wav2lip",
            "MRAA",
            "one_shot_free",
            "pirender",
            "tpsm",
            "lia",
            "danet",
            "sadtalker",
            "mcnet",
        ),
        *("hyperreenact", "heygen"),
    ),
    "EFS": (
        "VQGAN",
        "StyleGAN2",
        "StyleGAN3",
        "StyleGANXL",
        "sd2.1",
        "ddim",
        "rddm",
        "pixart",
        "DiT",
        "SiT",
        "MidJourney",
        "whichisreal",
    ),
    "FE": ("CollabDiff", "e4e", "stargan", "starganv2", "styleclip"),
}
"""The methods of each family, as DF40's lists name them: face swapping, face reenactment, entire face synthesis, face editing."""

ALIASES = {"whichfaceisreal": "whichisreal", "stargan2": "starganv2"}
"""Folders whose name is not that of the method, in lower case."""

METHODS = {method.lower(): method for methods in FAMILIES.values() for method in methods} | ALIASES

TREES: dict[Split, tuple[str, ...]] = {
    "train": ("DF40_train", "train"),
    "test": ("DF40", "DF40_test", "test"),
}
"""Where each tree is looked for, below the root."""

ORIGINS = {"ff": "ff", "cdf": "cdf", "fake": "own", "real": "own"}

LEVELS = frozenset({*ORIGINS, *FRAMES, FILES, "inversions"})
"""Folders that hold videos, or images that are a video each."""


@readable
def scan(
    root: Path,
    dataset: str = "df40",
    families: int | Sequence[str | int] = ("FS", "FR", "EFS", "FE"),
    methods: int | Sequence[str | int] | None = None,
    origins: int | Sequence[str | int] = ("ff", "cdf", "own"),
    lists: bool = False,
    ff: str | None = None,
    cdf: str | None = None,
    splits: str | None = None,
    labels: Mapping[Any, Any] | None = None,
) -> Iterator[Entry]:
    """The fakes of the chosen methods, and the real videos of their origins.

    Args:
        families: families whose methods are taken: FS, FR, EFS, FE.
        methods: methods to take among them; all when not given.
        origins: origins to take: `ff`, `cdf`, `own`.
        lists: read DF40's JSON files instead of its folders.
        ff: FaceForensics++ as DF40 distributes it; `ROOT/FaceForensics++` when not given.
        cdf: Celeb-DF v2 as DF40 distributes it; `ROOT/Celeb-DF-v2` when not given.
        splits: as that of FaceForensics++.
        labels: as those of DeepfakeBench's JSON files, for DF40's.

    Raises:
        InputError: an unknown family, method or origin, a missing folder or list, an unknown label
            in a list, or no real videos of an origin.
    """
    wanted = None if methods is None else overrides.as_names(methods, "data.source.methods")
    chosen = _chosen(overrides.as_names(families, "data.source.families"), wanted)
    origins = overrides.as_names(origins, "data.source.origins")
    if unknown := [origin for origin in origins if origin not in ORIGINS.values()]:
        raise InputError(
            f"DF40 has no origin {', '.join(unknown)}",
            "choose from ff, cdf, own in data.source.origins",
        )
    given = words.checked(labels or {}, "data.source.labels")
    if lists:
        yield from _listed(root, dataset, chosen, origins, given)
        return
    if given:
        raise InputError(
            "data.source.labels is for DF40's JSON files, and its folders are read",
            "leave it out, or give data.source.lists=true",
        )
    taken: set[tuple[str, Split]] = set()
    found: set[str] = set()
    for split, place in _trees(root):
        held = contents(place)
        yield from held.problems
        for folder in (place / name for name in held.folders):
            method = METHODS.get(folder.name.lower())
            if method is None:
                yield Problem(
                    "unlisted", f"{folder} is none of DF40's methods and left out", "remove it"
                )
            elif method in chosen:
                own: set[int] = set()
                for origin, entry in _method(folder, method, dataset, split):
                    if isinstance(entry, Problem):
                        yield entry
                    elif origin in origins:
                        taken.add((origin, split))
                        found.add(method)
                        own |= {entry.label} if origin == "own" else set()
                        yield entry
                if own == {1}:
                    yield Problem(
                        "missing",
                        f"{folder} has no real images beside the fake ones",
                        "complete the copy",
                    )
    yield from absent(chosen, found, "DF40's table of methods", root)
    if kept := {split for origin, split in taken if origin == "ff"}:
        # its validation videos have no fakes beside them
        for entry in ffpp.scan(
            _real(root, "FaceForensics++", ff, "ff"),
            dataset,
            "c23",
            manipulations=(),
            splits=splits,
        ):
            if isinstance(entry, Problem) or entry.split in kept:
                yield entry
    if any(origin == "cdf" for origin, _ in taken):
        yield from _celebdf(_real(root, "Celeb-DF-v2", cdf, "cdf"), dataset)


def _chosen(families: Sequence[str], methods: Sequence[str] | None) -> list[str]:
    if unknown := [family for family in families if family not in FAMILIES]:
        raise InputError(
            f"DF40 has no family {', '.join(unknown)}",
            f"choose from {', '.join(FAMILIES)} in data.source.families",
        )
    held = [method for family in families for method in FAMILIES[family]]
    if unknown := [method for method in methods or () if method not in held]:
        raise InputError(
            f"The families {', '.join(families)} of DF40 have no method {', '.join(unknown)}",
            f"choose from {', '.join(held)}",
        )
    return [method for method in held if methods is None or method in methods]


def _trees(root: Path) -> list[tuple[Split, Path]]:
    found: list[tuple[Split, Path]] = [
        (split, root / name)
        for split, names in TREES.items()
        for name in names
        if (root / name).is_dir()
    ]
    if not found:
        raise InputError(
            f"{root} holds neither DF40 nor DF40_train",
            "give the folder that holds them as data.root=PATH",
        )
    return found


def _real(root: Path, name: str, given: str | None, origin: str) -> Path:
    place = root / name if given is None else Path(given).expanduser().absolute()
    if not place.is_dir():
        raise InputError(
            f"There is no folder {place} with the real videos of {origin}",
            f"set data.source.{origin}=PATH, or leave it out of origins",
        )
    return place


def _method(folder: Path, method: str, dataset: str, split: Split) -> Iterator[tuple[str, Entry]]:
    """(origin, entry) of all that lies below the folder of a method; a video's file and its frames are one entry."""
    held: dict[str, tuple[str, Video]] = {}
    for place, (subfolders, images, clip, problems) in walk(folder, SIDE):
        parts = place.relative_to(folder).parts
        yield from (("", problem) for problem in problems)
        if not images and not clip:
            if not subfolders:
                yield "", without_frames(place)
            continue
        lone = not parts or parts[-1].lower() in LEVELS
        if _origin(parts, split) is None:
            yield (
                "",
                Problem(
                    "misplaced",
                    f"{place} lies in none of ff, cdf, fake, real and is left out",
                    "move it to the one it belongs to",
                ),
            )
            continue
        if (
            len(
                named := {part.lower() for part in (parts if lone else parts[:-1])} & ORIGINS.keys()
            )
            > 1
        ):
            yield (
                "",
                Problem(
                    "misplaced",
                    f"{place} lies in {' and in '.join(sorted(named))} and is left out",
                    "move it to the one it belongs to",
                ),
            )
            continue
        for name in images if lone else ():
            origin, label, domain, identity = _about((*parts, name), method, dataset, split)
            yield origin, Frame(Path(place, name), label, dataset, domain, identity, 0, split)
        for key, part in [
            ((*parts, Path(name).stem), {"file": Path(place, name)}) for name in clip
        ] + ([(parts, {"images": Path(place)})] if images and not lone else []):
            origin, label, domain, identity = _about(key, method, dataset, split)
            known = held.get(
                identity, (origin, Video(None, None, label, dataset, domain, identity, split))
            )[1]
            for name, path in part.items():
                if other := getattr(known, name):
                    raise twice(other, path)
            held[identity] = (origin, replace(known, **part))
    yield from held.values()


def _origin(parts: Sequence[str], split: Split) -> str | None:
    named = [ORIGINS[part.lower()] for part in parts if part.lower() in ORIGINS]
    return named[0] if named else "ff" if split == "train" else None


def _about(
    parts: Sequence[str], method: str, dataset: str, split: Split
) -> tuple[str, Literal[0, 1], str, str]:
    """Origin, label, domain and id of a video by the folders it lies in; a method numbers its own images anew in each tree."""
    origin = cast(str, _origin(parts[:-1], split))
    label = 0 if any(part.lower() == "real" for part in parts[:-1]) else 1
    where = (split,) if origin == "own" else (origin,)
    name = "/".join(
        (
            *(() if label else (method,)),
            *where,
            *(part for part in parts[:-1] if part.lower() not in LEVELS),
            parts[-1],
        )
    )
    domain = method if label else REAL
    return origin, label, domain, video_id(dataset, domain, "", name)


def _celebdf(place: Path, dataset: str) -> Iterator[Entry]:
    """The real videos among the test videos of Celeb-DF v2."""
    tested, problems = celebdf.tested(place)
    yield from problems
    for folder in celebdf.REALS:
        held, problems = clips(place / folder)
        labels, more = matched(tested.get(folder, {}), held, place / celebdf.LIST, place / folder)
        yield from (*problems, *more)
        for name, label in labels.items():
            if name in held:
                if label:
                    yield celebdf.mislabelled(name, folder, 0)
                yield Video(
                    *held[name],
                    0,
                    dataset,
                    REAL,
                    video_id(dataset, REAL, "", f"cdf/{folder}/{name}"),
                    "test",
                )


def _listed(
    root: Path,
    dataset: str,
    chosen: Sequence[str],
    origins: Collection[str],
    labels: Mapping[str, words.Label],
) -> Iterator[Entry]:
    """The frames that the JSON files of the chosen methods list; the real ones, which many files share, once."""
    places = [root / folder for folder in deepfakebench.FOLDERS if (root / folder).is_dir()]
    files = [place / entry.name for place in places for entry in listing(place)]
    held = {path.stem.lower(): path for path in files if path.suffix == ".json"}
    taken: dict[Path, int] = {}
    met: dict[str, None] = {}
    read = False
    for method in chosen:
        lists = [
            (origin, held.get((method if origin == "own" else f"{method}_{origin}").lower()))
            for origin in origins
        ]
        if not any(file for _, file in lists):
            yield Problem(
                "missing",
                f"{root} holds no JSON file of {method}",
                f"fetch it, or leave {method} out of data.source.methods",
            )
        for origin, file in lists:
            if file is None:
                continue
            read, gone = True, 0
            for entry in deepfakebench.listed(
                root, str(file.absolute()), dataset, None, labels, met
            ):
                if not isinstance(entry, Frame):
                    yield entry
                elif taken.get(entry.path, entry.label) != entry.label:
                    raise InputError(
                        f"{file} lists {entry.path} as {('real', 'fake')[entry.label]}, another "
                        "file the other way",
                        "fetch them again",
                    )
                elif entry.path not in taken:
                    if not entry.path.is_file():
                        gone += 1
                        continue
                    taken[entry.path] = entry.label
                    domain = method if entry.label else REAL
                    name = entry.video.removeprefix(f"{dataset}/{entry.domain}/")
                    where = (
                        f"{method}/{name}"
                        if origin == "own" and not entry.label
                        else f"{origin}/{name}"
                    )
                    yield replace(entry, domain=domain, video=video_id(dataset, domain, "", where))
            if gone:
                yield Problem(
                    "missing",
                    f"{file} lists {gone} frames that are not there and are left out",
                    "DF40 says so of synthesised faces",
                )
    if not read:
        raise InputError(
            f"{root} holds no JSON file of the chosen methods of DF40 (METHOD_ff.json, ...)",
            "fetch DF40's dataset_json",
        )
    deepfakebench.check_met(labels, met, "the JSON files of the chosen methods")
