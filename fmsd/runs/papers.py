"""The papers behind runs: of their methods, backbones, data sets and so on, as far as recorded.

The record of a run may come from a stranger: a choice counts if a configuration file that is
installed here has its name, and nothing else of it is used.
"""

import os
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fmsd.citations import Paper, file_citations, find_papers
from fmsd.errors import InputError
from fmsd.hub_addresses import is_address
from fmsd.names import name_fault
from fmsd.package_files import CONF
from fmsd.plugins import choice_files
from fmsd.quoting import printable
from fmsd.runs.configuration import flatten, read_configuration
from fmsd.runs.folder import Run

GROUPS = (
    "backbone", "data", "experiments", "loss", "merger", "method", "optimizer", "protocol",
    "schedule", "wrapper",
)  # fmt: skip
"""Groups whose choices may have a paper."""

LOADER = CONF / "loader" / "default.yaml"
"""The settings of every run's loaders, which are no choice."""


@dataclass
class CitedPapers:
    """The papers behind runs.

    Args:
        parts: what of the runs cites each paper (`method=lora`).
        unknown: parts that no paper is known for.
        skipped: sentences on runs, choices and experts that could not be followed.
    """

    parts: dict[Paper, set[str]] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)

    def add_file(self, file: Path, part: str, settings: Mapping[str, object]) -> bool:
        """Adds the papers that a configuration file names.

        Args:
            part: what the file configures, as `method=lora`.
            settings: the run's configuration by dotted key.

        Returns:
            Whether it names one.
        """
        citations = [one for one in file_citations(file) if one.applies(settings)]
        for citation in citations:
            try:
                found = find_papers(citation, file)
            except (InputError, OSError) as error:
                self.skipped.add(f"{_message(error)}: cite {', '.join(citation.keys)} yourself")
                continue
            for paper in found:
                self.parts.setdefault(paper, set()).add(citation.condition or part)
        return bool(citations)

    def update(self, other: "CitedPapers") -> None:
        """Adds those of other runs."""
        for paper, parts in other.parts.items():
            self.parts.setdefault(paper, set()).update(parts)
        self.unknown |= other.unknown
        self.skipped |= other.skipped


def cited_papers(runs: Iterable[Run]) -> CitedPapers:
    """The papers behind some runs, evaluations and merges, and behind the experts of the latter.

    What cannot be followed is skipped with a sentence: a run or an expert that is damaged or gone,
    a choice that is not installed, a bibliography that cannot be read.
    """
    found = CitedPapers()
    seen: set[str] = set()
    waiting = list(runs)
    while waiting:
        run = waiting.pop()
        if (place := os.path.realpath(run.folder)) in seen:
            continue
        seen.add(place)
        try:
            record = run.record()
            settings = flatten(read_configuration(run.folder)) if run.config.is_file() else {}
            found.update(_papers_of_run(run, record, settings))
        except (InputError, OSError) as error:
            found.skipped.add(f"{_message(error)}: cite the papers of {run.folder} yourself")
            continue
        if "merged" in record and "run" not in record:
            waiting += _experts(run, settings.get("experts"), found.skipped)
    return found


def _papers_of_run(run: Run, record: Mapping[str, Any], settings: Mapping[str, Any]) -> CitedPapers:
    """The papers of what a run itself used."""
    found = CitedPapers()
    made = "merge" if "merged" in record else "import" if "imported" in record else "train"
    if "external" in record:
        made = "score" if record["external"]["kind"] == "detector" else "import"
        about = record["external"]
        name = record.get("label") or about.get("detector") or about.get("file")
        found.unknown.add(f"the detector {printable(Path(str(name)).name)[:60]}")
    verbs = {"evaluate" if "run" in record else made} | ({made} if made == "import" else set())
    for verb in sorted(verbs):
        found.add_file(CONF / f"{verb}.yaml", "fmsd", settings)
    found.add_file(LOADER, "", settings)
    for group, choice in _choices(record, settings):
        file = choice_files(group).get(choice) if isinstance(choice, str) else None
        if file is None:
            found.skipped.add(
                f"{group}={str(choice)[:60]!r} of {run.folder} is no choice of fmsd or of an "
                "installed plugin: cite its papers yourself"
            )
        elif not found.add_file(file, f"{group}={choice}", settings) and group != "experiments":
            found.unknown.add(f"{group}={choice}")
    for name in _datasets(record):
        file = choice_files("data").get(name)
        if file is None or not found.add_file(file, f"data={name}", settings):
            found.unknown.add(f"data={name}")
    return found


def _choices(
    record: Mapping[str, Any], settings: Mapping[str, Any]
) -> Iterator[tuple[str, object]]:
    """The recorded choices, with their groups."""
    recorded = record.get("choices")
    for group, choice in recorded.items() if isinstance(recorded, dict) else ():
        if group in GROUPS and choice is not None:
            yield group, choice
    if "data.protocol" in settings:  # an evaluation may follow another one than its run
        yield "protocol", settings["data.protocol"]


def _datasets(record: Mapping[str, Any]) -> set[str]:
    """The names of the datasets that a run was trained, validated and tested on."""
    manifests, origin = record.get("manifests"), record.get("origin")
    parts = list(manifests.values()) if isinstance(manifests, dict) else []
    parts += [origin.get("train")] if isinstance(origin, dict) else []
    names = {name for part in parts if isinstance(part, dict) for name in part}
    return {name for name in names if name_fault(name) is None and name != "unknown"}


def _experts(merge: Run, recorded: object, skipped: set[str]) -> Iterator[Run]:
    """Yields the experts of a merge that are runs; adds a sentence on each other one.

    Args:
        recorded: `experts` of the merge's configuration.
    """
    if not isinstance(recorded, list):
        skipped.add(f"{merge.folder} does not record its experts: cite their papers yourself")
        return
    for path in recorded:
        is_path = isinstance(path, str) and path != "" and path.isprintable()
        # False for a folder that cannot be read and a name that is too long, too
        if is_path and os.path.isfile(f"{path}/run.json"):
            yield Run(Path(path))
            continue
        if is_address(path):
            skipped.add(f"The papers of {path} are not among these: add `fmsd cite run={path}`")
            continue
        name = Path(path).name if is_path else str(path)
        skipped.add(
            f"What the expert {name[:60]!r} of {merge.folder} was trained with is not recorded "
            "here: cite it yourself"
        )


def _message(error: InputError | OSError) -> str:
    """What is wrong, without a remedy."""
    if isinstance(error, InputError):
        return error.message
    return f"{error.filename} cannot be read ({error.strerror})"


def bibliography(found: CitedPapers, writer: str) -> str:
    """The papers as a BibTeX file; comments name what cites each.

    Where two packages have different entries of one key, the second is written as `KEY-2`.

    Args:
        writer: for the first line, see `is_written_by`.
    """
    parts = [_comment(f"Written by {writer}.")]
    if found.unknown:
        parts[0] += _comment(f"No paper is known for {', '.join(sorted(found.unknown))}.")
    written: set[str] = set()
    for paper in sorted(found.parts):
        key, number = paper.key, 1
        while key in written:
            number += 1
            key = f"{paper.key}-{number}"
        written.add(key)
        entry = paper.text.replace(f"{{{paper.key},", f"{{{key},", 1)
        parts.append(_comment(", ".join(sorted(found.parts[paper]))) + f"{entry}\n")
    return "\n".join(parts)


def is_written_by(file: Path, writer: str) -> bool:
    """Whether a BibTeX file was written by a verb."""
    return file.read_text(encoding="utf-8").startswith(f"% Written by {writer}.\n")


def _comment(text: str) -> str:
    """A text as lines of comment; BibTeX itself would read an @ in them as an entry."""
    return (
        textwrap.fill(
            text.replace("@", "(at)"),
            100,
            initial_indent="% ",
            subsequent_indent="% ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        + "\n"
    )
