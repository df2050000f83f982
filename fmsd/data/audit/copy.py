"""Checks of the source: every file that it yields, and every problem that it reports."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from fmsd.data.audit.findings import READ_AGAIN, Finding, refusal
from fmsd.data.entries import check_filled, from_entries, note_filled
from fmsd.data.frame import Entry, Frame, Problem, Video
from fmsd.data.manifest import Manifest
from fmsd.data.sources import tree
from fmsd.errors import InputError, reason

IS_FILM = pl.col("film")
"""Whether a row of an examined manifest is a video file; training reads only the others."""

UNREADABLE_FOLDERS = "unreadable folders"


@dataclass(frozen=True)
class ScannedCopy:
    """The result of a scan for an examination.

    Args:
        manifest: the files, with the column `film`; None where there is no file.
        findings: the problems that the source reported, and the error that ended it, if any.
        missing_domains: the domains of which the source misses videos.
    """

    manifest: Manifest | None
    findings: list[Finding]
    missing_domains: frozenset[str] = frozenset()


def without_films(manifest: Manifest) -> Manifest:
    """A manifest of images alone, with the column `film`."""
    return replace(manifest, table=manifest.table.with_columns(film=pl.lit(False)))


def scan_copy(source: Callable[[Path], Iterable[Entry]], root: Path) -> ScannedCopy:
    """Every file that a source yields, video files included, and the problems that it reports.

    An error of the source is a finding, too; what it yielded before is kept.
    """
    problems: list[Problem] = []
    refusals: list[Exception] = []
    films: list[str] = []

    def files() -> Iterator[Frame]:
        filled: dict[tuple[str, int], bool] = {}
        try:
            for entry in source(root):
                if isinstance(entry, Problem):
                    problems.append(entry)
                elif isinstance(entry, Video):
                    count = yield from _files(entry, problems)
                    note_filled(filled, entry, count)
                    films.extend([] if entry.file is None else [entry.file.as_posix()])
                else:
                    yield entry
            check_filled(filled)
        except (InputError, OSError) as error:
            refusals.append(error)

    manifest = None
    try:
        manifest = from_entries(files(), root)
        film = pl.Series(manifest.files()).is_in(films)
        manifest = replace(manifest, table=manifest.table.with_columns(film=film))
    except InputError as error:
        refusals = refusals or [error]
    missing = frozenset(problem.domain for problem in problems if problem.domain is not None)
    return ScannedCopy(manifest, [*map(refusal, refusals), *_by_kind(problems)], missing)


def select_datasets(
    manifest: Manifest,
    train: Sequence[str],
    test: Sequence[str],
    elsewhere: Iterable[str],
    place: str | Path,
    key: str,
) -> tuple[Manifest, list[Finding]]:
    """The datasets of a copy that the data names; all of it where it names none, or none of these.

    Args:
        train, test: names of `data.train` and `data.test`.
        elsewhere: test datasets that have a root of their own.
        place: the root or the manifest that was read.
        key: the override that gave it, `data.root` or `data.manifest`.
    """
    known = manifest.table["dataset"].drop_nulls().unique().sort().to_list()
    requested = [*train, *test]
    if not requested:
        return manifest, []
    content = f"{place} holds {', '.join(known)}"
    if not set(requested) & set(known):
        here = dict.fromkeys(name for name in requested if name not in elsewhere)
        error = InputError(
            f"{content}, not {', '.join(here or requested)}",
            f"correct {key}, or name what it holds in data.train=[...] and data.test=[...]",
        )
        return manifest, [refusal(error)]
    findings = []
    if unknown := [name for name in train if name not in known]:
        example = f"{content}, not {', '.join(unknown)} of data.train"
        remedy = "to train on it, correct data.train=[...]"
        findings.append(Finding("test_only", "for testing only", "note", [example], remedy))
    return manifest.where(dataset=requested), findings


def _files(video: Video, problems: list[Problem]) -> Generator[Frame, None, int]:
    """The frames of a video, then its file, with the index that follows theirs; their number."""
    count = 0
    if video.images is not None:
        try:
            for frame in tree.entry_frames(video):
                if isinstance(frame, Problem):
                    problems.append(replace(frame, domain=video.domain))
                else:
                    count += 1
                    yield frame
        except InputError as error:
            problems.append(Problem(UNREADABLE_FOLDERS, error.message, error.remedy))
        except OSError as error:
            problems.append(Problem(UNREADABLE_FOLDERS, reason(error), READ_AGAIN))
    if video.file is not None:
        yield Frame(
            video.file,
            video.label,
            video.dataset,
            video.domain,
            video.video,
            count,
            video.split,
            video.compression,
            video.pair,
            video.audio,
        )
        count += 1
    return count


def _by_kind(problems: Sequence[Problem]) -> list[Finding]:
    """A finding for each kind of problem, with the remedy of its first."""
    kinds: dict[str, list[Problem]] = {}
    for problem in problems:
        kinds.setdefault(problem.kind, []).append(problem)
    return [
        Finding(
            "source",
            kind,
            "fatal" if kind == UNREADABLE_FOLDERS else "warning",
            [problem.what for problem in members],
            members[0].remedy,
        )
        for kind, members in kinds.items()
    ]
