"""Deepfake-Eval-2024: videos and images that people met in 2024 and had checked.

Chandra et al., 2025, arXiv 2503.02857.

    ROOT/video-data/NAME.mp4        ROOT/video-metadata-publish.csv
    ROOT/image-data/NAME.webp       ROOT/image-metadata-publish.csv

The tables are also published with a column of links, as `...-publish-with-links.csv`. The label is
that of the pictures; the table of videos also has one of the sound. Rows that are labelled
`Unknown` are left out. `Finetuning Set` is the split.
"""

from collections.abc import Generator, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from fmsd.data.frame import REAL, Audio, Entry, Frame, Problem, Split, Video, video_id
from fmsd.data.sources.labels import LABEL_WORDS, Label
from fmsd.data.sources.text import read_csv_header, read_csv_table
from fmsd.data.sources.tree import FAKE, VideoPaths, list_videos, read_folder, refuse_unreadable
from fmsd.data.spelling import ListedPaths, match_names, to_nfc
from fmsd.errors import InputError

UNKNOWN = "unknown"
"""The word of a label that the authors do not know, in lower case."""

TRUTH = {"video": "Video Ground Truth", "image": "Ground Truth"}
"""The column of the pictures' label, of each kind of media."""

SOUND = "Audio Ground Truth"
"""The column of the sound's label."""

AUDIO_WORDS: dict[str, Audio] = {"real": "real", "fake": "fake"}
"""What the sound is by the word in lower case; nothing is known of others."""

LEFT_OUT = {
    "nameless": "have no file name, or a spreadsheet's #NAME? in its place",
    "unknown": "are labelled Unknown",
    "unassigned": "have no Finetuning Set",
    "fake speech": "are real pictures under fake speech",
}
"""What rows are left out, by the kind of their problem."""

SPLIT_WORDS: dict[str, Split] = {"train": "train", "test": "test"}
"""The split by the word in lower case."""


class _Row(NamedTuple):
    label: Label
    split: Split
    audio: Audio


@refuse_unreadable
def scan(
    root: Path,
    dataset: str,
    media: Literal["video", "image"],
    real_with_fake_audio: bool = True,
    label_column: str | None = None,
    frames: str | None = None,
) -> Iterator[Entry]:
    """The labelled videos or images.

    Args:
        media: `video` or `image`.
        real_with_fake_audio: whether real pictures under fake speech are taken, as real; they
            repeat no other video.
        label_column: the column of the pictures' label; None for `TRUTH`.
        frames: name of the folder of extracted frames; detected where there is only one.

    Raises:
        InputError: no table, an unknown word in it, a file with two labels, or frames of one of two
            videos that differ in their labels.
    """
    place, table = root / f"{media}-data", _table(root, media)
    paths = ListedPaths(table)
    truth = label_column or _label_column(table, media)
    listed = yield from _rows(table, truth, media, paths, real_with_fake_audio)
    if media == "image":
        inside = read_folder(place)
        found: Mapping[str, VideoPaths | None] = dict.fromkeys(inside.images)
        problems = inside.problems
    else:
        found, problems = list_videos(place, frames)
        listed = _by_stem(listed, found, table)
    rows = {name: row for name, row in listed.items() if row is not None}
    domains = {name: FAKE if row.label else REAL for name, row in rows.items()}
    rows, more = match_names(rows, found, table, place, domains)
    yield from (*problems, *more, *paths.problems())
    for name, files in found.items():
        if (row := rows.get(name)) is None:
            if name not in listed:
                what = f"{place / name} is not in {table} and left out"
                yield Problem("unlisted", what, "remove it")
            continue
        domain = FAKE if row.label else REAL
        identity = video_id(dataset, domain, "", name)
        if files is None:
            yield Frame(place / name, row.label, dataset, domain, identity, 0, row.split)
            continue
        file, images = files
        yield Video(file, images, row.label, dataset, domain, identity, row.split, audio=row.audio)


def _table(root: Path, media: str) -> Path:
    """The table of a kind of media.

    Raises:
        InputError: there is none.
    """
    names = [f"{media}-metadata-publish{end}.csv" for end in ("", "-with-links")]
    for name in names:
        if (root / name).is_file():
            return root / name
    raise InputError(
        f"{root} holds neither {' nor '.join(names)}",
        "give the folder Deepfake-Eval-2024 as data.root=PATH",
    )


def _label_column(table: Path, media: str) -> str:
    """The column of the pictures' label.

    Raises:
        InputError: a table of videos has only a label that may be that of pictures and sound.
    """
    truth, overall = TRUTH[media], TRUTH["image"]
    header = {name.casefold() for name in read_csv_header(table, (truth, overall))}
    if truth.casefold() not in header and overall.casefold() in header:
        raise InputError(
            f"{table} has no column {truth}; its column {overall} may be the label of pictures and "
            "sound together, by which a real face under fake speech would be a fake",
            "fetch the table again, or if it is the label of the pictures: "
            f"'data.source.label_column=\"{overall}\"'",
        )
    return truth


def _by_stem(
    listed: Mapping[str, _Row | None], found: Mapping[str, VideoPaths], table: Path
) -> dict[str, _Row | None]:
    """The rows by name without ending: of the file on disk, or of the only video of this name.

    Raises:
        InputError: the frames on disk may be those of two videos that differ.
    """
    stems: dict[str, dict[str, _Row | None]] = {}
    for name, row in listed.items():
        stems.setdefault(to_nfc(PurePosixPath(name).stem), {})[name] = row
    files = {to_nfc(stem): file for stem, (file, _) in found.items()}
    rows: dict[str, _Row | None] = {}
    for stem, named in stems.items():
        file = files.get(stem)
        own = [name for name in named if file is not None and to_nfc(name) == to_nfc(file.name)]
        if not own and stem in files and len(set(named.values())) > 1:
            raise InputError(
                f"{table} lists {' and '.join(named)} with different labels or sets, and what lies "
                "on disk may be either",
                "complete the copy, or remove the row of the video that it is not",
            )
        name = (own or sorted(named, key=lambda name: named[name] is None))[0]
        rows[PurePosixPath(name).stem] = named[name]
    return rows


def _rows(
    table: Path, truth: str, media: str, paths: ListedPaths, real_with_fake_audio: bool
) -> Generator[Problem, None, dict[str, _Row | None]]:
    """Reads the table; yields problems.

    Args:
        truth: the column of the label.

    Returns:
        The rows by file name; None for files that are left out.

    Raises:
        InputError: an unknown word, or a file with two labels.
    """
    sound = [SOUND] if media == "video" else []
    columns, lines = read_csv_table(table, ["Filename", truth, "Finetuning Set"], sound)
    rows: dict[str, _Row | None] = {}
    left_out: dict[str, list[str]] = {kind: [] for kind in LEFT_OUT}
    for line, cells in lines:
        row = dict(zip(columns, cells, strict=True))
        name = PurePosixPath(paths.with_slashes(row["Filename"])).name
        word, part = row[truth].casefold(), row["Finetuning Set"].casefold()
        audio = row.get(SOUND, "").casefold()
        about: _Row | None = None
        if not name or name.startswith("#NAME"):
            left_out["nameless"].append(name)
        elif word == UNKNOWN:
            left_out["unknown"].append(name)
        elif word not in LABEL_WORDS:
            raise InputError(
                f"Line {line} of {table} labels {name} {row[truth]!r}, which is none of Real, "
                "Fake, Unknown",
                "correct that line, or remove it",
            )
        elif not part:
            left_out["unassigned"].append(name)
        elif part not in SPLIT_WORDS:
            raise InputError(
                f"Line {line} of {table} has {name} in the Finetuning Set "
                f"{row['Finetuning Set']!r}, which is none of Train, Test",
                "correct that line, or remove it",
            )
        elif word == "real" and audio == "fake" and not real_with_fake_audio:
            left_out["fake speech"].append(name)
        else:
            about = _Row(LABEL_WORDS[word], SPLIT_WORDS[part], AUDIO_WORDS.get(audio, ""))
        if rows.setdefault(name, about) != about:
            raise InputError(
                f"Line {line} of {table} lists {name} again with another label or set",
                "remove the wrong line",
            )
    for kind, names in left_out.items():
        if names:
            yield Problem(kind, f"{len(names)} rows of {table} {LEFT_OUT[kind]}, and are left out")
    return rows
