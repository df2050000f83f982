"""Help pages of the verbs, generated from their configuration files and the comments in them."""

import re
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fmsd.citations import CITE, file_citations, find_papers
from fmsd.cli.conf_files import (
    base_files,
    choice_file,
    default_choices,
    groups,
    left_out_groups,
    read_conf_file,
)
from fmsd.errors import InputError
from fmsd.package_files import CONF
from fmsd.plugins import plugin_of

LINE = re.compile(
    r"""^(?P<indent> *)(?P<quote>"?)(?P<key>[\w+]+)(?P=quote):"""
    r"""(?: +(?P<value>[^#\s].*?))?(?: +# (?P<about>.*))?$"""
)
"""A key of a YAML file with its value and the comment beside it."""

CONTINUATION = re.compile(r"^ +# (?P<about>.*)$")
"""A line on which the comment of the key above goes on."""


class Key(NamedTuple):
    """A key of a configuration file.

    Args:
        value: as the file writes it; empty where further keys lie below.
        about: the comment beside it.
    """

    name: str
    value: str
    about: str


def file_keys(file: Path, prefix: str = "") -> list[Key]:
    """The keys of a configuration file in order, with the comments beside them.

    A comment goes on in the lines below that hold an indented comment alone.

    Args:
        prefix: of the dotted names, for the file of a group.
    """
    keys: list[Key] = []
    above: list[tuple[int, str]] = []
    skipped, opened, continues = -1, 0, False
    for line in file.read_text(encoding="utf-8").splitlines():
        if continues and (more := CONTINUATION.match(line)):
            keys[-1] = keys[-1]._replace(about=f"{keys[-1].about} {more['about']}")
            continue
        continues = False
        inside, bare = opened > 0, line.partition(" # ")[0]
        opened += sum(bare.count(bracket) for bracket in "{[")
        opened -= sum(bare.count(bracket) for bracket in "}]")
        match = LINE.match(line)
        if match is None or inside:
            continue
        indent, key = len(match["indent"]), match["key"]
        if skipped >= 0 and indent > skipped:
            continue
        skipped = indent if key == "defaults" else -1
        if skipped >= 0 or key.startswith("_"):
            continue
        above = [*((depth, name) for depth, name in above if depth < indent), (indent, key)]
        name = prefix + ".".join(name for _, name in above)
        keys.append(Key(name, "" if opened > 0 else match["value"] or "", match["about"] or ""))
        continues = bool(match["about"])
    return keys


def file_header(file: Path) -> tuple[str, list[str]]:
    """The description at the top of a configuration file, and its examples.

    An example that ends with a backslash goes on in the next line, as in a shell. Papers to cite
    are left out, see `fmsd.citations`.
    """
    joined = re.sub(r" \\\n# +", " ", file.read_text(encoding="utf-8"))
    lines = [
        line.removeprefix("# ")
        for line in joined.splitlines()
        if line.startswith("# ") and not CITE.fullmatch(line)
    ]
    examples = [line.removeprefix("Example: ") for line in lines if line.startswith("Example: ")]
    description = [line for line in lines if not line.startswith(("Example: ", "@package"))]
    return " ".join(description), examples


def help_page(verb: str, arguments: Sequence[str] = ()) -> str:
    """The description, examples, keys and groups of a verb, or of the groups among its arguments.

    Args:
        arguments: those of the verb; GROUP asks for its choices, GROUP=CHOICE for the keys of one.

    Raises:
        InputError: a group has no such choice.
    """
    known = groups(verb)
    topics = [
        argument
        for argument in arguments
        if not argument.startswith("-") and argument.partition("=")[0] in known
    ]
    if topics:
        return "\n\n".join(
            _group_page(verb, group, choice, known)
            for group, _, choice in (topic.partition("=") for topic in topics)
        )
    file = CONF / f"{verb}.yaml"
    about, examples = file_header(file)
    shown = [key for key in file_keys(file) if key.name not in known and (key.value or key.about)]
    parts = [_wrap(about, "")]
    parts.append("\n".join(["Examples", *(f"  {example}" for example in examples)]))
    if shown:
        parts.append("\n".join(["Keys, with their defaults (??? must be given)", *_rows(shown)]))
    if known:
        rows = [
            (name, choice, ", ".join(known[name])) for name, choice in default_choices(verb).items()
        ]
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
    """The choices of a group, or the keys of one choice."""
    if choice and choice not in known[group]:
        raise InputError(
            f"There is no {group}={choice}", f"choose one of {', '.join(known[group])}"
        )
    if not choice:
        rows = [(name, "", _about_choice(choice_file(group, name))) for name in known[group]]
        return "\n".join(
            [f"Choices, as {group}=NAME", *_rows(rows), "", f"Keys of one: --help {group}=NAME"]
        )
    file = choice_file(group, choice)
    merged: dict[str, Key] = {}
    left_out = left_out_groups(verb)
    for part in base_files(file, left_out):
        package = read_conf_file(part, group).package
        for key in file_keys(part, "".join(f"{name}." for name in package)):
            if key.value or key.about:  # a comment holds for files based on this one, too
                about = key.about or merged.get(key.name, key).about
                merged[key.name] = key._replace(about=about)
    cited = [_wrap(line, "") for line in _cited_papers(file)]
    return "\n".join([_wrap(_about_choice(file), ""), *cited, "", *_rows(list(merged.values()))])


def _about_choice(file: Path) -> str:
    """The description of a choice, with the plugin that it comes with."""
    plugin, about = plugin_of(file), file_header(file)[0]
    return about if plugin is None else f"{about} From {plugin}.".strip()


def _cited_papers(file: Path) -> list[str]:
    """What a choice asks to cite, with the addresses of the papers."""
    return [
        f"Cite{f' if {citation.condition}' if citation.condition else ''}: "
        + ", ".join(
            f"{paper.key} ({paper.link[1]})" if paper.link else paper.key
            for paper in find_papers(citation, file)
        )
        for citation in file_citations(file)
    ]


def _width() -> int:
    return min(shutil.get_terminal_size((120, 24)).columns, 140)


def _wrap(text: str, indent: str) -> str:
    return textwrap.fill(
        text,
        _width(),
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _rows(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    """Lines with each name and value, and the comments wrapped into one column."""
    heads = [f"  {name}" + (f"={_shorten(value)}" if value else "") for name, value, _ in rows]
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


def _shorten(value: str, most: int = 40) -> str:
    return value if len(value) <= most else f"{value[: most - 3]}..."
