"""The JSON files of DF40: one for each method and origin, in the format of DeepfakeBench."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fmsd.data.frame import REAL, Entry, Frame, Problem, video_id
from fmsd.data.sources.deepfakebench import scan_file
from fmsd.data.sources.deepfakebench_json import JSON_FOLDERS
from fmsd.data.sources.deepfakebench_labels import check_labels_used
from fmsd.data.sources.labels import Label
from fmsd.data.sources.tree import visible_entries
from fmsd.errors import InputError


def scan_lists(
    root: Path,
    dataset: str,
    methods: Sequence[str],
    origins: Collection[str],
    labels: Mapping[str, Label],
) -> Iterator[Entry]:
    """The frames in the JSON files of some methods; real frames, which many files share, once.

    Args:
        methods: the methods to read.
        origins: the origins to read: `ff`, `cdf`, `own`.
        labels: user-given labels of ambiguous names.

    Raises:
        InputError: there is no file, or two files give a frame different labels.
    """
    folders = [root / folder for folder in JSON_FOLDERS if (root / folder).is_dir()]
    paths = [folder / entry.name for folder in folders for entry in visible_entries(folder)]
    file_of = {path.stem.lower(): path for path in paths if path.suffix == ".json"}
    taken: dict[Path, int] = {}
    met: dict[str, None] = {}
    read = False
    for method in methods:
        names = {origin: method if origin == "own" else f"{method}_{origin}" for origin in origins}
        files = {origin: file_of.get(name.lower()) for origin, name in names.items()}
        if not any(files.values()):
            yield Problem(
                "missing",
                f"{root} holds no JSON file of {method}",
                f"fetch it, or leave {method} out of data.source.methods",
                domain=method,
            )
        for origin, file in files.items():
            if file is not None:
                read = True
                yield from _scan_list(root, file, dataset, method, origin, labels, met, taken)
    if not read:
        raise InputError(
            f"{root} holds no JSON file of the chosen methods of DF40 (METHOD_ff.json, ...)",
            "fetch DF40's dataset_json",
        )
    check_labels_used(labels, met, "the JSON files of the chosen methods")


def _scan_list(
    root: Path,
    file: Path,
    dataset: str,
    method: str,
    origin: str,
    labels: Mapping[str, Label],
    met: dict[str, None],
    taken: dict[Path, int],
) -> Iterator[Entry]:
    """The frames in one JSON file that no earlier one lists.

    Args:
        met: the names of the file's labels are added to it.
        taken: labels of the frames of earlier files, to which this one's are added.
    """
    absent = 0
    for entry in scan_file(root, str(file.absolute()), dataset, None, labels, met):
        if not isinstance(entry, Frame):
            yield entry
            continue
        if taken.get(entry.path, entry.label) != entry.label:
            raise InputError(
                f"{file} lists {entry.path} as {('real', 'fake')[entry.label]}, another "
                "file the other way",
                "fetch them again",
            )
        if entry.path in taken:
            continue
        if not entry.path.is_file():
            absent += 1
            continue
        taken[entry.path] = entry.label
        domain = method if entry.label else REAL
        name = entry.video.removeprefix(f"{dataset}/{entry.domain}/")
        where = method if origin == "own" and not entry.label else origin
        identity = video_id(dataset, domain, "", f"{where}/{name}")
        yield replace(entry, domain=domain, video=identity, pair="")
    if absent:
        yield Problem(
            "missing",
            f"{file} lists {absent} frames that are not there and are left out",
            "DF40's authors note this for synthesised faces",
            domain=method,
        )
