"""Papers: their BibTeX entries, and the configuration files that name them.

A configuration file names the papers of what it configures in its header:

    # Cite: hu2022lora
    # Cite if method.dora=true: liu2024dora

The entries lie in `conf/references.bib` of the same package, or of fmsd.
"""

import functools
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fmsd.errors import InputError
from fmsd.package_files import CONF
from fmsd.plugins import conf_folders

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
    "c": "\u0327",
}  # fmt: skip
"""Unicode's combining accents by LaTeX's commands."""


class Citation(NamedTuple):
    """Papers that a configuration file names.

    Args:
        keys: of their entries.
        condition: when they are cited: `KEY=VALUE`, or `KEY` for any value but null, false, 0, and
            an empty text, list or mapping; KEY is a dotted key of the whole configuration. Empty
            for always.
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


@dataclass(frozen=True, order=True)
class Paper:
    """An entry of a bibliography.

    Args:
        text: the entry as it is written.
        fields: its values by name, in LaTeX.
    """

    key: str
    text: str
    fields: Mapping[str, str] = field(compare=False)

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
                (prefix + self.fields[name], start + self.fields[name])
                for name, (prefix, start) in addresses.items()
                if name in self.fields
            ),
            None,
        )


@functools.cache
def papers(conf: Path = CONF) -> dict[str, Paper]:
    """The entries of a package, by key; empty if it has no bibliography.

    Args:
        conf: the folder of its configuration files; by default that of fmsd.

    Raises:
        InputError: the bibliography is damaged.
    """
    file = conf / BIBLIOGRAPHY
    return read_bibliography(file) if file.is_file() else {}


def file_citations(file: Path) -> list[Citation]:
    """The papers that a configuration file names in its header.

    Raises:
        InputError: it is not encoded in UTF-8.
    """
    return [
        Citation(tuple(re.split(r"[,\s]+", match["keys"].strip())), match["condition"] or "")
        for line in _read(file).splitlines()
        if (match := CITE.fullmatch(line))
    ]


def find_papers(citation: Citation, file: Path) -> list[Paper]:
    """The entries that a citation names: of its own package, else of fmsd.

    Args:
        file: the configuration file with the citation.

    Raises:
        InputError: neither has one of them, or the bibliography of the package is damaged.
    """
    own = next((folder for folder in conf_folders() if file.is_relative_to(folder)), CONF)
    known = papers() | papers(own)
    if missing := [key for key in citation.keys if key not in known]:
        raise InputError(
            f"{file} cites {missing[0]}, which neither {own / BIBLIOGRAPHY} nor that of fmsd has",
            f"add it to {own / BIBLIOGRAPHY}, or correct the key",
        )
    return [known[key] for key in citation.keys]


def read_bibliography(file: Path) -> dict[str, Paper]:
    """The entries of a BibTeX file, by key.

    The file is of a strict form: entries whose first line is `@TYPE{KEY,` and whose last is `}`,
    with fields `NAME = {VALUE},`, each on lines of its own, and comments that begin with `%`.

    Raises:
        InputError: it has another form or encoding than UTF-8, characters that cannot be printed,
            two entries of one key, or one without author, title or year.
    """
    text, found = _read(file), {}
    if odd := next((sign for sign in text if not (sign.isprintable() or sign in "\n\t")), None):
        line = text.count("\n", 0, text.index(odd)) + 1
        raise _damaged(file, f"line {line} holds {odd!r}, which cannot be printed")
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


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")  # some editors write a mark at its beginning
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not encoded in UTF-8", "save it again in UTF-8") from error


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
        r"\{\\([`'^~\"vc])\{?(\w)\}?\}",
        lambda match: unicodedata.normalize("NFC", match[2] + ACCENTS[match[1]]),
        latex,
    )
    return re.sub(r"[{}]", "", accented)
