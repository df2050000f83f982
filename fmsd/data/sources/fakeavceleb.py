"""FakeAVCeleb v1.2 (Khalid et al., NeurIPS 2021 Datasets and Benchmarks, arXiv 2108.05080) in its official tree.

    ROOT/meta_data.csv
    ROOT/{RealVideo-RealAudio,RealVideo-FakeAudio,FakeVideo-RealAudio,FakeVideo-FakeAudio}/RACE/GENDER/id00076/00109.mp4

The label here is that of the pictures. RealVideo-FakeAudio is therefore real; as its pictures are
those of RealVideo-RealAudio, it is left out unless asked for. The domain of a fake is the table's
method. In the table, the column named `path` holds a file's name, and the nameless last one its
folder.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from fmsd.data import overrides
from fmsd.data.frame import REAL, Entry, Problem, Split, Video, video_id
from fmsd.data.sources.labels import forgery
from fmsd.data.sources.text import read_csv
from fmsd.data.sources.tree import clips, readable
from fmsd.data.spelling import Spelling, matched
from fmsd.errors import InputError

TYPES = ("RealVideo-RealAudio", "RealVideo-FakeAudio", "FakeVideo-RealAudio", "FakeVideo-FakeAudio")

COLUMNS = [
    "source",
    "target1",
    "target2",
    "method",
    "category",
    "type",
    "race",
    "gender",
    "path",
    "",
]


@readable
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
        types: which of the four types.
        split: the split of all videos, as there is no official one.
        frames: name of the folder that holds the frames; found by itself where there is only one.

    Raises:
        InputError: an unknown type, or a missing or damaged table.
    """
    types = overrides.as_names(types, "data.source.types")
    if unknown := [kind for kind in types if kind not in TYPES]:
        raise InputError(
            f"FakeAVCeleb has no type {', '.join(unknown)}",
            f"choose from {', '.join(TYPES)} in data.source.types",
        )
    table = root / "meta_data.csv"
    listed: dict[tuple[str, ...], dict[str, str]] = {}
    spelling = Spelling(table)
    for line, folder, name, method in _rows(table, spelling):
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
        place = spelling.place(root, "/".join(folder))
        held, problems = clips(place, frames) if place.is_dir() else ({}, [])
        methods, more = matched(written, held, table, place)
        yield from (*problems, *more)
        for name, (file, images) in held.items():
            if name not in methods:
                yield Problem(
                    "unlisted", f"{images or file} is not in {table} and left out", "remove it"
                )
                continue
            label = 0 if folder[0].startswith("RealVideo") else 1
            domain = (
                forgery(methods[name], f"The row of {'/'.join(folder)}/{name} in {table}")
                if label
                else REAL
            )
            identity = video_id(dataset, domain, "", f"{'/'.join(folder)}_{name}")
            yield Video(file, images, label, dataset, domain, identity, split)
    yield from spelling.problems()


def _rows(table: Path, spelling: Spelling) -> Iterator[tuple[int, tuple[str, ...], str, str]]:
    """(line, folder from the type on, file name without its ending, method) of each video."""
    if not table.is_file():
        raise InputError(
            f"There is no {table}", "give the FakeAVCeleb_v1.2 folder as data.root=PATH"
        )
    header, rows = read_csv(table, COLUMNS)
    kind, place, name, method = (header.index(column) for column in ("type", "", "path", "method"))
    for line, row in rows:
        parts = PurePosixPath(spelling.slashed(row[place])).parts
        if len(parts) < 2 or row[kind] not in TYPES or row[kind] not in parts:
            raise InputError(
                f"Line {line} of {table} does not tell a video's type, file and folder",
                "correct that line, or remove it",
            )
        yield line, parts[parts.index(row[kind]) :], PurePosixPath(row[name]).stem, row[method]
