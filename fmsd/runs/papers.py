"""The papers behind runs: of their methods, backbones, data sets and so on, as far as recorded.

The record of a run may come from a stranger: a choice counts if a configuration file that is
installed here has its name, and nothing else of it is used.
"""

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fmsd.citations import file_citations, find_papers, papers
from fmsd.names import name_fault
from fmsd.package_files import CONF
from fmsd.plugins import choice_files
from fmsd.runs.configuration import flatten, read_configuration
from fmsd.runs.folder import Run

GROUPS = (
    "backbone", "data", "experiments", "merger", "method", "optimizer", "protocol", "schedule",
    "wrapper",
)  # fmt: skip
"""Groups whose choices may have a paper."""

LOADER = CONF / "loader" / "default.yaml"
"""The settings of every run's loaders, which are no choice."""


@dataclass
class CitedPapers:
    """The papers behind runs.

    Args:
        parts: what of the runs cites a paper (`method=lora`), by the key of its entry.
        unknown: parts that no paper is known for.
        skipped: sentences on choices and experts that could not be followed.
    """

    parts: dict[str, set[str]] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)

    def add_file(self, file: Path, part: str, settings: Mapping[str, object]) -> bool:
        """Adds the papers that a configuration file names.

        Args:
            part: what the file configures, as `method=lora`.
            settings: the run's configuration by dotted key.

        Returns:
            Whether there is one.
        """
        citations = [one for one in file_citations(file) if one.applies(settings)]
        for citation in citations:
            for paper in find_papers(citation, file):
                self.parts.setdefault(paper.key, set()).add(citation.condition or part)
        return bool(citations)

    def update(self, other: "CitedPapers") -> None:
        """Adds those of other runs."""
        for key, parts in other.parts.items():
            self.parts.setdefault(key, set()).update(parts)
        self.unknown |= other.unknown
        self.skipped |= other.skipped


def cited_papers(runs: Iterable[Run]) -> CitedPapers:
    """The papers behind some runs, evaluations and merges, and behind the experts of the latter.

    Raises:
        InputError: a run is damaged.
    """
    found = CitedPapers()
    seen: set[Path] = set()
    waiting = list(runs)
    while waiting:
        run = waiting.pop()
        if (place := run.folder.resolve()) in seen:
            continue
        seen.add(place)
        record = run.record()
        settings = flatten(read_configuration(run.folder)) if run.config.is_file() else {}
        found.update(_papers_of_run(run, record, settings))
        for expert in _experts(record, settings):
            if (expert / "run.json").is_file():
                waiting.append(Run(expert))
            else:
                found.skipped.add(
                    f"What the expert {expert.name!r} of {run.folder} was trained with is not "
                    "recorded here: cite it yourself"
                )
    return found


def _papers_of_run(run: Run, record: Mapping[str, Any], settings: Mapping[str, Any]) -> CitedPapers:
    """The papers of what a run itself used."""
    found = CitedPapers()
    verb = "evaluate" if "run" in record else "merge" if "merged" in record else "train"
    found.add_file(CONF / f"{verb}.yaml", f"fmsd {verb}", settings)
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


def _experts(record: Mapping[str, Any], settings: Mapping[str, Any]) -> list[Path]:
    """The experts of a merge; empty for other runs."""
    experts = settings.get("experts") if "merged" in record and "run" not in record else None
    return [Path(path) for path in (experts if isinstance(experts, list) else ()) if _is_path(path)]


def _is_path(text: object) -> bool:
    return isinstance(text, str) and text.isprintable()


def bibliography(found: CitedPapers, writer: str) -> str:
    """The papers as a BibTeX file; comments name what cites each.

    Args:
        writer: for the first line, see `is_written_by`.
    """
    parts = [_comment(f"Written by {writer}.")]
    if found.unknown:
        parts[0] += _comment(f"No paper is known for {', '.join(sorted(found.unknown))}.")
    parts += [
        _comment(", ".join(sorted(found.parts[key]))) + f"{papers()[key].text}\n"
        for key in sorted(found.parts)
    ]
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
