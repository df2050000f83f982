"""Help pages of the verbs, made of their configuration files and the comments in these."""

import re
import shutil
import textwrap
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from fmsd.cli.files import CONF
from fmsd.errors import InputError

LINE = re.compile(
    r"""^(?P<indent> *)(?P<quote>"?)(?P<key>[\w+]+)(?P=quote):(?: +(?P<value>[^#\s].*?))?(?: +# (?P<about>.*))?$"""
)
"""A key of a YAML file with its value and the comment beside it."""


class Key(NamedTuple):
    """A key of a configuration file.

    Args:
        value: as the file writes it; empty where further keys lie below.
        about: the comment beside it.
    """

    name: str
    value: str
    about: str


def keys(file: Path, prefix: str = "") -> Iterator[Key]:
    """The keys of a configuration file in order, with the comments beside them.

    Args:
        prefix: dotted, of a file that configures a group.
    """
    above: list[tuple[int, str]] = []
    skipped, opened = -1, 0
    for line in file.read_text(encoding="utf-8").splitlines():
        inside, bare = opened > 0, line.partition(" # ")[0]
        opened += sum(bare.count(bracket) for bracket in "{[") - sum(
            bare.count(bracket) for bracket in "}]"
        )
        match = LINE.match(line)
        if match is None or inside:
            continue
        indent = len(match["indent"])
        if skipped >= 0 and indent > skipped:
            continue
        skipped = indent if match["key"] == "defaults" else -1
        if skipped >= 0 or match["key"].startswith("_"):
            continue
        above = [
            *((depth, name) for depth, name in above if depth < indent),
            (indent, match["key"]),
        ]
        yield Key(
            prefix + ".".join(name for _, name in above),
            "" if opened > 0 else match["value"] or "",
            match["about"] or "",
        )


def header(file: Path) -> tuple[str, list[str]]:
    """What a configuration file says it is for, and its examples."""
    lines = [
        line.removeprefix("# ")
        for line in file.read_text(encoding="utf-8").splitlines()
        if line.startswith("# ")
    ]
    lines = [line for line in lines if not line.startswith("@package")]
    text = [line for line in lines if not line.startswith("Example: ")]
    return " ".join(text), [
        line.removeprefix("Example: ") for line in lines if line.startswith("Example: ")
    ]


def groups(verb: str) -> dict[str, list[str]]:
    """The groups of a verb's configuration, in order, with the names of their choices."""
    return {name: choices(name) for name in _defaults(CONF / f"{verb}.yaml")}


def _defaults(file: Path) -> dict[str, str]:
    """The groups in a verb's defaults list, and the choice of each."""
    entries = yaml.safe_load(file.read_text(encoding="utf-8")).get("defaults", [])
    found = {
        name: str(choice)
        for entry in entries
        if isinstance(entry, dict)
        for name, choice in entry.items()
    }
    return {name: choice for name, choice in found.items() if "@" not in name}


def choices(group: str) -> list[str]:
    """The names of a group's choices, those in folders below it with the folder: `recipes/effort`."""
    folder = CONF / group
    names = (path.relative_to(folder).with_suffix("") for path in folder.rglob("*.yaml"))
    return sorted(
        name.as_posix() for name in names if not any(part.startswith("_") for part in name.parts)
    )


def page(verb: str, words: Sequence[str] = ()) -> str:
    """What a verb does, its keys and groups, and examples; with a group, or a choice of one, among the words: the keys of that.

    Raises:
        InputError: a word that names neither.
    """
    known = groups(verb)
    topics = [
        word for word in words if not word.startswith("-") and word.partition("=")[0] in known
    ]
    if topics:
        return "\n\n".join(
            _group_page(verb, group, choice, known)
            for group, _, choice in (word.partition("=") for word in topics)
        )
    file = CONF / f"{verb}.yaml"
    about, examples = header(file)
    own = [key for key in keys(file) if key.name not in known and (key.value or key.about)]
    parts = [_wrapped(about, "")]
    parts.append("\n".join(["Examples", *(f"  {example}" for example in examples)]))
    parts.append("\n".join(["Keys, with their defaults (??? must be given)", *_rows(own)]))
    if known:
        rows = [(name, choice, ", ".join(known[name])) for name, choice in _defaults(file).items()]
        parts.append("\n".join(["Groups, with their defaults and choices", *_rows(rows)]))
        parts.append(
            f"Keys of a choice: fmsd {verb} --help {next(iter(known))}, or GROUP=CHOICE. All keys "
            f"with their values: fmsd {verb} --cfg job ..."
        )
    parts.append(
        "-m runs a sweep over comma-separated values; --config-dir=FOLDER adds configuration "
        "files of your own; --hydra-help has the rest."
    )
    return "\n\n".join(parts)


def _group_page(verb: str, group: str, choice: str, known: dict[str, list[str]]) -> str:
    """The choices of a group and the keys of one, or of all that they share."""
    if choice and choice not in known[group]:
        raise InputError(
            f"There is no {group}={choice}", f"choose one of {', '.join(known[group])}"
        )
    if not choice:
        rows = [(name, "", header(CONF / group / f"{name}.yaml")[0]) for name in known[group]]
        return "\n".join(
            [f"Choices, as {group}=NAME", *_rows(rows), "", f"Keys of one: --help {group}=NAME"]
        )
    file = CONF / group / f"{choice}.yaml"
    found: dict[str, Key] = {}
    left_out = without_groups(verb)
    for part in bases(file, left_out):
        whole = "# @package _global_" in part.read_text(encoding="utf-8").splitlines()
        for key in keys(part, "" if whole else f"{group}."):
            if (
                key.value or key.about
            ):  # a comment holds for the files that are made of this one, too
                found[key.name] = key._replace(about=key.about or found.get(key.name, key).about)
    return "\n".join([_wrapped(header(file)[0], ""), "", *_rows(list(found.values()))])


def without_groups(verb: str) -> set[str]:
    """The groups, nested in those of a verb, that it leaves out: `override loader@data: null`."""
    entries = yaml.safe_load((CONF / f"{verb}.yaml").read_text(encoding="utf-8"))["defaults"]
    pairs = [pair for entry in entries if isinstance(entry, dict) for pair in entry.items()]
    overridden = [name.removeprefix("override ") for name, choice in pairs if choice is None]
    return {name.partition("@")[0] for name in overridden if "@" in name}


def bases(file: Path, left_out: Collection[str] = ()) -> Iterator[Path]:
    """The files that a file is made of, itself last.

    Args:
        left_out: nested groups whose files are not taken.
    """
    for entry in (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("defaults", []):
        if isinstance(entry, str):
            base = file.parent / f"{entry.partition('@')[0]}.yaml"
            if base.is_file():
                yield from bases(base, left_out)
        else:
            for name, choice in entry.items():
                group = name.removeprefix("/").partition("@")[0]
                if name.startswith("/") and group not in left_out:
                    yield CONF / group / f"{choice}.yaml"
    yield file


def _width() -> int:
    return min(shutil.get_terminal_size((120, 24)).columns, 140)


def _wrapped(text: str, indent: str) -> str:
    return textwrap.fill(
        text,
        _width(),
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _rows(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    """A line for each name with its value and text, the texts wrapped into one column."""
    heads = [f"  {name}" + (f"={_shortened(value)}" if value else "") for name, value, _ in rows]
    left = min(max(map(len, heads), default=0), 36) + 3
    lines = []
    for head, (_, _, about) in zip(heads, rows, strict=True):
        if len(head) > left - 2:
            lines.append(head)
        first = head.ljust(left) if len(head) <= left - 2 else " " * left
        text = textwrap.fill(
            about,
            _width(),
            initial_indent=first,
            subsequent_indent=" " * left,
            break_long_words=False,
            break_on_hyphens=False,
        )
        lines.extend(text.splitlines() if about or len(head) <= left - 2 else [])
        if not about and len(head) <= left - 2:
            lines.append(head)
    return lines


def _shortened(value: str, most: int = 40) -> str:
    return value if len(value) <= most else f"{value[: most - 3]}..."
