"""IDForge v1, as its split lists describe it.

Xu et al., ACM Multimedia 2024, arXiv 2401.11764.

    ROOT/{train,val,test}.csv                    TASK/id00/id00_03/NAME.mp4 a line, without header
    ROOT/**/TASK/id00/id00_03/NAME.mp4

Names repeat across tasks, so a video is known by its task, session and name. The label is that of
the images: in three tasks real images have cloned or synthesised speech. The domain of a fake is
the face swap at the end of its name (`_infoswap`), else `lip` or `face`, as its task begins.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from fmsd.data.frame import REAL, Audio, Entry, Problem, Split
from fmsd.data.sources.listing import Described, by_last_parts, describe, find_videos
from fmsd.data.sources.text import read_text
from fmsd.data.sources.tree import refuse_unreadable
from fmsd.data.spelling import ListedPaths
from fmsd.errors import InputError

TASKS: dict[str, tuple[str, Audio]] = {
    "pristine": (REAL, "real"),
    "face_audiomismatch_textmismatch": ("face", "real"),
    "face_rvc_textmismatch": ("face", "fake"),
    "face_tts": ("face", "fake"),
    "face_tts_textgen": ("face", "fake"),
    "lip_audiomismatch_textmismatch": ("lip", "real"),
    "lip_rvc_textmismatch": ("lip", "fake"),
    "lip_tts_textgen": ("lip", "fake"),
    "rvc_textmismatch": (REAL, "fake"),
    "tts_textgen": (REAL, "fake"),
    "tts_textmismatch": (REAL, "fake"),
}
"""The domain and the sound of each task; the speech of another video is real speech."""

SWAPS = ("infoswap", "roop", "simswap")
"""The face swaps that end the names of fakes."""

SPLITS: tuple[Split, ...] = ("test", "val", "train")

LAST_PARTS = 4
"""The number of parts of a listed path: task, person, session, file."""


@refuse_unreadable
def scan(
    root: Path,
    dataset: str = "idforge",
    real_with_fake_audio: bool = False,
    frames: str | None = None,
) -> Iterator[Entry]:
    """The videos that the lists name.

    Args:
        real_with_fake_audio: take real images under fake speech, as real; they repeat images.
        frames: name of the folders that hold extracted frames; detected where there is one kind.

    Raises:
        InputError: a missing or damaged list, or an unknown task in it.
    """
    listed: dict[str, Described | None] = {}
    again: list[str] = []
    for split in SPLITS:
        path = root / f"{split}.csv"
        if not path.is_file():
            raise InputError(
                f"There is no {path}",
                "put train.csv, val.csv and test.csv of the release there, or correct data.root",
            )
        paths = ListedPaths(path)
        for number, line in enumerate(read_text(path).splitlines(), 1):
            if not (file := paths.with_slashes(line.strip().strip('"'))):
                continue
            parts = PurePosixPath(file).with_suffix("").parts[-LAST_PARTS:]
            if len(parts) < LAST_PARTS or parts[0] not in TASKS:
                raise InputError(
                    f"Line {number} of {path} is {line.strip()!r}, not TASK/PERSON/SESSION/FILE",
                    f"correct that line; the tasks are {', '.join(TASKS)}",
                )
            if (key := "/".join(parts)) in listed:
                again.append(f"{key} ({path.name})")
                continue
            domain, audio = TASKS[parts[0]]
            if domain == REAL and audio == "fake" and not real_with_fake_audio:
                listed[key] = None
                continue
            swap = parts[-1].rpartition("_")[2]
            domain = swap if domain == "face" and swap in SWAPS else domain
            listed[key] = Described(domain, key, split, audio=audio)
        yield from paths.problems()
    if again:
        what = f"{len(again)} videos are listed again, the first {again[0]}"
        yield Problem("repeated", what, "each is taken once (test before val before train)")
    found, problems = find_videos(root, frames)
    yield from problems
    yield from describe(by_last_parts(found, LAST_PARTS, listed), listed, dataset, root, root)
