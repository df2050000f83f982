"""FakeAVCeleb v1.2 in its official tree.

Khalid et al., NeurIPS 2021 Datasets and Benchmarks, arXiv 2108.05080.

    ROOT/meta_data.csv
    ROOT/{Real,Fake}Video-{Real,Fake}Audio/RACE/GENDER/id00076/00109.mp4

The label is that of the images, not of the sound. RealVideo-FakeAudio is therefore real; as its
images equal those of RealVideo-RealAudio, it is left out by default. The domain of a fake is the
table's method. The column `path` has a file's name, the nameless last column its folder. A fake is
made from the real video of its person, the one in RealVideo-RealAudio/RACE/GENDER/id00076.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from fmsd.data import name_overrides
from fmsd.data.frame import REAL, Entry, Problem, Split, Video, pair_id, video_id
from fmsd.data.sources.labels import forgery_domain
from fmsd.data.sources.text import read_csv_table
from fmsd.data.sources.tree import list_videos, refuse_unreadable
from fmsd.data.spelling import ListedPaths, match_names
from fmsd.errors import InputError

TYPES = ("RealVideo-RealAudio", "RealVideo-FakeAudio", "FakeVideo-RealAudio", "FakeVideo-FakeAudio")

# fmt: off
METADATA_COLUMNS = [
    "source", "target1", "target2", "method", "category", "type", "race", "gender", "path", "",
]
# fmt: on
"""The columns of meta_data.csv; the last one has no name."""


@refuse_unreadable
def scan(
    root: Path,
    dataset: str = "fakeavceleb",
    types: int | Sequence[str | int] = (
        "RealVideo-RealAudio",
        "FakeVideo-RealAudio",
        "FakeVideo-FakeAudio",
    ),
    split: Split = "test",
    frames: str | None = None,
) -> Iterator[Entry]:
    """The videos of the chosen types that the table lists.

    Args:
        types: the types to take, of the four in `TYPES`.
        split: the split of all videos, as there is no official one.
        frames: name of the folder that holds the frames; detected where there is only one.

    Raises:
        InputError: an unknown type, or a missing or damaged table.
    """
    types = name_overrides.as_names(types, "data.source.types")
    if unknown := [kind for kind in types if kind not in TYPES]:
        raise InputError(
            f"FakeAVCeleb has no type {', '.join(unknown)}",
            f"choose from {', '.join(TYPES)} in data.source.types",
        )
    table = root / "meta_data.csv"
    listed: dict[tuple[str, ...], dict[str, str]] = {}
    originals: dict[tuple[str, ...], set[str]] = {}
    paths = ListedPaths(table)
    for line, folder, name, method in _rows(table, paths):
        if folder[0] == TYPES[0]:
            originals.setdefault(folder[1:], set()).add(name)
        if folder[0] not in types:
            continue
        methods = listed.setdefault(folder, {})
        if methods.setdefault(name, method) != method:
            yield Problem(
                "repeated",
                f"Line {line} of {table} lists {'/'.join(folder)}/{name} again as {method}",
                f"it stays {methods[name]}",
            )
    for folder, written in listed.items():
        place = paths.locate(root, "/".join(folder))
        videos, problems = list_videos(place, frames) if place.is_dir() else ({}, [])
        is_real = folder[0].startswith("RealVideo")
        domains = dict.fromkeys(written, REAL) if is_real else written
        methods, more = match_names(written, videos, table, place, domains)
        yield from (*problems, *more)
        for name, (file, images) in videos.items():
            if name not in methods:
                yield Problem(
                    "unlisted", f"{images or file} is not in {table} and left out", "remove it"
                )
                continue
            label = 0 if is_real else 1
            domain = (
                forgery_domain(methods[name], f"The row of {'/'.join(folder)}/{name} in {table}")
                if label
                else REAL
            )
            identity = video_id(dataset, domain, "", f"{'/'.join(folder)}_{name}")
            pair = "" if is_real else pair_id(dataset, "", _original(originals, folder))
            audio = "fake" if folder[0].endswith("FakeAudio") else "real"
            yield Video(
                file, images, label, dataset, domain, identity, split, pair=pair, audio=audio
            )
    yield from paths.problems()


def _original(
    originals: Mapping[tuple[str, ...], Collection[str]], folder: tuple[str, ...]
) -> str | None:
    """The name of the one real video of the person of a fake's folder; None if there are several.

    Args:
        originals: names of the real videos by RACE, GENDER and person.
        folder: of the fake, from its type on.
    """
    names = originals.get(folder[1:], ())
    return "/".join((TYPES[0], *folder[1:])) + f"_{next(iter(names))}" if len(names) == 1 else None


def _rows(table: Path, paths: ListedPaths) -> Iterator[tuple[int, tuple[str, ...], str, str]]:
    """(line, folder from the type on, file name without its ending, method) of each video."""
    if not table.is_file():
        raise InputError(
            f"There is no {table}", "give the FakeAVCeleb_v1.2 folder as data.root=PATH"
        )
    header, rows = read_csv_table(table, METADATA_COLUMNS)
    kind, folder = header.index("type"), header.index("")
    name, method = header.index("path"), header.index("method")
    for line, row in rows:
        parts = PurePosixPath(paths.with_slashes(row[folder])).parts
        if len(parts) < 2 or row[kind] not in TYPES or row[kind] not in parts:
            raise InputError(
                f"Line {line} of {table} has no valid type and folder of a video",
                "correct that line, or remove it",
            )
        yield line, parts[parts.index(row[kind]) :], PurePosixPath(row[name]).stem, row[method]
