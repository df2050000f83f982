"""Papers: their BibTeX entries, and the configuration files that name them.

A configuration file names the papers of what it configures in its header:

    # Cite: hu2022lora
    # Cite if method.dora=true: liu2024dora

The entries lie in `conf/references.bib` of fmsd and of each plugin.
"""

import functools
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fmsd.errors import InputError
from fmsd.plugins import conf_folders, plugin_of

BIBLIOGRAPHY = "references.bib"
"""The name of the file with the entries."""

CITE = re.compile(r"# Cite(?: if (?P<condition>[\w.]+(?:=\S+)?))?: *(?P<keys>\S.*)")
"""A line of a header that names papers."""

ENTRY = re.compile(r"^@[a-z]+\{(?P<key>[\w:+./-]+),\n(?P<fields>.*?)^\}$", re.MULTILINE | re.DOTALL)
NESTED = r"(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*"
"""A value with up to two levels of braces."""
FIELD = re.compile(rf"\s*(?P<name>[a-z]+)\s*=\s*\{{(?P<value>{NESTED})\}},?\n")
LINKS = {"eprint": r"[\w./-]+", "doi": r"10\.[^\s{}<>\"]+", "url": r"https://[^\s{}<>\"]+"}
"""The fields that lead to a paper, and what they may hold."""

LETTERS = {r"{\l}": "\u0142", r"{\o}": "\u00f8", r"{\ss}": "\u00df", r"\&": "&"}
ACCENTS = {
    "`": "\u0300", "'": "\u0301", "^": "\u0302", "~": "\u0303", '"': "\u0308", "v": "\u030c",
}  # fmt: skip
"""Unicode's combining accents by LaTeX's commands."""


class Citation(NamedTuple):
    """Papers that a configuration file names.

    Args:
        keys: of their entries.
        condition: when they are cited: `KEY=VALUE`, or `KEY` for any value but null, false and
            nothing, with a dotted key of the whole configuration; empty for always.
    """

    keys: tuple[str, ...]
    condition: str

    def applies(self, settings: Mapping[str, object]) -> bool:
        """Whether the condition holds.

        Args:
            settings: values by dotted key.
        """
        key, sign, wanted = self.condition.partition("=")
        value = settings.get(key)
        if not sign:
            return not key or bool(value)
        return (str(value).lower() if isinstance(value, bool) else str(value)) == wanted


@dataclass(frozen=True)
class Paper:
    """An entry of a bibliography.

    Args:
        text: the entry as it is written.
        fields: its values by name, in LaTeX.
    """

    key: str
    text: str
    fields: Mapping[str, str]

    @property
    def reference(self) -> str:
        """Authors, year, title and venue as plain text."""
        names = [
            plain_text(name if name.startswith("{") else name.partition(",")[0])
            for name in self.fields["author"].split(" and ")
        ]
        if len(names) > 2 or names[-1] == "others":
            names = [f"{names[0]} et al."]
        venues = (self.fields.get(name) for name in ("booktitle", "journal", "howpublished"))
        ends = (self.fields["title"], *(venue for venue in venues if venue))
        return f"{' and '.join(names)} ({self.fields['year']}): {plain_text('. '.join(ends))}"

    @property
    def link(self) -> tuple[str, str] | None:
        """The name and the address of the paper; None if it has no address."""
        addresses = {
            "eprint": ("arXiv ", "https://arxiv.org/abs/"), "doi": ("doi ", "https://doi.org/"),
            "url": ("", ""),
        }  # fmt: skip
        return next(
            (
                (name + self.fields[field], start + self.fields[field])
                for field, (name, start) in addresses.items()
                if field in self.fields
            ),
            None,
        )


@functools.cache
def papers() -> dict[str, Paper]:
    """The entries of fmsd and its plugins, by key.

    Raises:
        InputError: a file is damaged, or two have an entry of one key.
    """
    found: dict[str, Paper] = {}
    owners: dict[str, str] = {}
    for file in (folder / BIBLIOGRAPHY for folder in conf_folders()):
        plugin = plugin_of(file)
        owner = "fmsd" if plugin is None else str(plugin)
        for key, paper in (read_bibliography(file) if file.is_file() else {}).items():
            if key in found:
                raise InputError(
                    f"{owner} brings the paper {key}, which {owners[key]} has, too",
                    f"rename it in {file}, or uninstall one of them",
                )
            found[key], owners[key] = paper, owner
    return found


def file_citations(file: Path) -> list[Citation]:
    """The papers that a configuration file names in its header."""
    return [
        Citation(tuple(re.split(r"[,\s]+", match["keys"].strip())), match["condition"] or "")
        for line in file.read_text(encoding="utf-8").splitlines()
        if (match := CITE.fullmatch(line))
    ]


def find_papers(citation: Citation, file: Path) -> list[Paper]:
    """The entries that a citation names.

    Args:
        file: the configuration file with the citation, for the message.

    Raises:
        InputError: no file has one of them.
    """
    if missing := [key for key in citation.keys if key not in papers()]:
        raise InputError(
            f"{file} cites {missing[0]}, which no {BIBLIOGRAPHY} has",
            f"add it to conf/{BIBLIOGRAPHY} of the same package, or correct the key",
        )
    return [papers()[key] for key in citation.keys]


def read_bibliography(file: Path) -> dict[str, Paper]:
    """The entries of a BibTeX file, by key.

    The file is of a strict form: entries whose first line is `@TYPE{KEY,` and whose last is `}`,
    with fields `NAME = {VALUE},`, each on lines of its own, and comments that begin with `%`.

    Raises:
        InputError: it has another form, two entries of one key, or one without author, title or
            year.
    """
    text, found = file.read_text(encoding="utf-8"), {}
    outside = (line for line in ENTRY.sub("", text).splitlines() if line.strip())
    if stray := next((line for line in outside if not line.startswith("%")), None):
        raise _damaged(file, f"{stray.strip()!r} belongs to no entry")
    for match in ENTRY.finditer(text):
        key, fields = match["key"], dict(_fields(file, match["key"], match["fields"]))
        if key in found:
            raise _damaged(file, f"the entry {key} is there twice")
        if missing := [name for name in ("author", "title", "year") if not fields.get(name)]:
            raise _damaged(file, f"the entry {key} has no {missing[0]}")
        for name, form in LINKS.items():
            if name in fields and not re.fullmatch(form, fields[name]):
                raise _damaged(file, f"the entry {key} has the {name} {fields[name]!r}")
        found[key] = Paper(key, match[0], fields)
    return found


def _fields(file: Path, key: str, text: str) -> Iterator[tuple[str, str]]:
    """The names and values of an entry's fields."""
    place = 0
    while place < len(text):
        match = FIELD.match(text, place)
        if match is None:
            raise _damaged(
                file, f"the entry {key} has the field {text[place:].splitlines()[0].strip()!r}"
            )
        yield match["name"], " ".join(match["value"].split())
        place = match.end()


def _damaged(file: Path, why: str) -> InputError:
    return InputError(
        f"{file} is no bibliography as fmsd reads it ({why})",
        "write fields as NAME = {VALUE}, one below the other, or install its package again",
    )


def plain_text(latex: str) -> str:
    """LaTeX's text without its braces, and with accented letters in Unicode."""
    for command, letter in LETTERS.items():
        latex = latex.replace(command, letter)
    accented = re.sub(
        r"\{\\([`'^~\"v])\{?(\w)\}?\}",
        lambda match: unicodedata.normalize("NFC", match[2] + ACCENTS[match[1]]),
        latex,
    )
    return re.sub(r"[{}]", "", accented)
