"""The references of conf/ and of the verbs, from the files and their comments.

The configuration has a page per group; the command line is one page, with what `fmsd --help` and
`fmsd VERB --help` print.
"""

import html
import re
from pathlib import Path
from typing import NamedTuple

from navigation import verbs
from repository import Place

from fmsd.cli.conf_files import base_files, choices, default_choices, dotted_values, read_conf_file
from fmsd.cli.conf_files import groups as verb_groups
from fmsd.cli.help import Key, file_header, file_keys
from fmsd.cli.main import USAGE
from fmsd.package_files import CONF

FOLDER = "reference/configuration"
COMMAND_LINE = "reference/command_line.md"

NOT_CHOSEN = ("folder",)
"""Groups that a verb sets itself."""

INTRODUCTION = """# Configuration

A group is a folder of `conf/`, and a choice is a file in it: `method=lora` reads
`conf/method/lora.yaml`.
Keys are set by their whole name, as in `method.rank=8`; `fmsd VERB --help GROUP=CHOICE` shows the
keys of one choice, and `fmsd VERB ... --cfg job` the whole configuration.
`???` must be given, and `${...}` takes the value of another key.
The keys of the verbs themselves are in the [command line](../command_line.md).

"""

MARKS = re.compile(r"([\\*_\[\]|])")
"""Characters that mean something in Markdown."""

ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")


class Base(NamedTuple):
    """A file that a choice is based on.

    Args:
        group: of the file.
        name: of the file, without its ending.
    """

    group: str
    name: str


def groups() -> list[str]:
    """The groups, by name; those of Hydra last."""
    found = {
        path.parent.relative_to(CONF).as_posix()
        for pattern in ("*/*.yaml", "hydra/*/*.yaml")
        for path in CONF.glob(pattern)
    }
    return sorted(found - set(NOT_CHOSEN), key=lambda group: (group.startswith("hydra"), group))


def page_of(group: str) -> str:
    """The page of a group."""
    return f"{FOLDER}/{group.replace('/', '_')}.md"


def anchor(choice: str) -> str:
    """The anchor of a choice in the page of its group."""
    return re.sub(r"[^\w-]", "-", choice.replace("+", "plus"))


def files(group: str) -> list[str]:
    """The files of a group, without their ending: what choices share, then the choices."""
    shared = sorted(path.stem for path in (CONF / group).glob("_*.yaml"))
    return [*shared, *(name for name in choices(group) if _file(group, name).is_file())]


def places() -> dict[str, Place]:
    """By file of conf/, its place; experiments/ is also a folder beside conf/."""
    found = {
        f"conf/{group}/{name}.yaml": Place(page_of(group), anchor(name))
        for group in groups()
        for name in files(group)
    }
    beside = {
        file.removeprefix("conf/"): place
        for file, place in found.items()
        if file.startswith("conf/experiments/")
    }
    verb_files = {f"conf/{verb}.yaml": Place(COMMAND_LINE, verb) for verb in verbs()}
    return found | beside | verb_files


def pages() -> dict[str, str]:
    """The Markdown of all pages, by page."""
    written = {page_of(group): _page(group) for group in groups()}
    rows = [
        row(
            f"[`{group}`]({page_of(group).rpartition('/')[2]})",
            _used_by(group),
            ", ".join(choice_link(group, name, FOLDER) for name in files(group) if name[0] != "_"),
        )
        for group in groups()
    ]
    head = [row("group", "verbs, with their default", "choices"), row("---", "---", "---")]
    written[COMMAND_LINE] = _command_line()
    written[f"{FOLDER}/index.md"] = INTRODUCTION + "\n".join([*head, *rows]) + "\n"
    return written


def choice_link(group: str, choice: str, folder: str) -> str:
    """A link to a choice from a page of a folder of the site."""
    page = page_of(group).removeprefix(f"{folder}/")
    return f"[{choice}]({page}#{anchor(choice)})".replace("_", "\\_", choice.count("_"))


def _file(group: str, name: str) -> Path:
    return CONF / group / f"{name}.yaml"


def _used_by(group: str) -> str:
    """The verbs that have a group, by default choice."""
    by_default: dict[str, list[str]] = {}
    for verb in verbs():
        if (CONF / f"{verb}.yaml").is_file():
            chosen = default_choices(verb)
            if group in chosen:
                by_default.setdefault(chosen[group], []).append(f"`{verb}`")
    return "; ".join(
        f"{', '.join(names)}: {code(default)}" for default, names in by_default.items()
    )


def _page(group: str) -> str:
    """The page of a group."""
    parts = [f"# {group}"]
    used = _used_by(group)
    if used:
        parts.append(f"Verbs with this group, and their default: {used}.")
    elif group.startswith("hydra/"):
        parts.append(f"How a sweep (`-m`) runs: `{group}=CHOICE`, with every verb.")
    shown = files(group)
    if len(shown) > 2:
        rows = [row(f"[`{name}`](#{anchor(name)})", _summary(group, name)) for name in shown]
        parts.append("\n".join([row("choice", "what it is"), row("---", "---"), *rows]))
    parts.extend(_section(group, name) for name in shown)
    return "\n\n".join(parts) + "\n"


def _summary(group: str, name: str) -> str:
    """The first sentence of a file's description."""
    about = file_header(_file(group, name))[0].removeprefix("Claim: ")
    return prose(re.split(r"(?<=[a-z)\d]{2}\.) ", about, maxsplit=1)[0])


def _section(group: str, name: str) -> str:
    """A file: its description, what it is based on, its keys."""
    file = _file(group, name)
    conf_file = read_conf_file(file)
    parts = [f"## {name} {{ #{anchor(name)} }}".replace("_", "\\_", name.count("_"))]
    about, examples = file_header(file)
    parts.append(prose(about))
    if examples:
        parts.append("\n".join(["```bash", *examples, "```"]))
    parts.append("; ".join(_facts(group, name)) + ".")
    rows = [
        row(code(key.name), code(key.value), prose(key.about))
        for key in _keys(file, ".".join(map(str, conf_file.package)))
    ]
    if rows:
        parts.append("\n".join([row("key", "value", "meaning"), row("---", "---", "---"), *rows]))
    return "\n\n".join(part for part in parts if part)


def _facts(group: str, name: str) -> list[str]:
    """Where a file's keys lie, what it calls, chooses and is based on."""
    file = _file(group, name)
    package, values = read_conf_file(file)
    below = ".".join(map(str, package))
    facts = [f"Keys below `{below}`" if below else "Keys at the top level"]
    own = values.get(group)
    target = values.get("_target_") or (own.get("_target_", "") if isinstance(own, dict) else "")
    if target:
        facts.append(f"calls `{target}`")
    chosen = [
        f"`{key.removeprefix('override /')}={choice}`"
        for entry in values.get("defaults", [])
        if isinstance(entry, dict)
        for key, choice in entry.items()
        if key.startswith("override /")
    ]
    if chosen:
        facts.append(f"chooses {', '.join(chosen)}")
    bases = [
        f"[{base.name if base.group == group else '='.join(base)}]"
        f"({'' if base.group == group else page_of(base.group).rpartition('/')[2]}"
        f"#{anchor(base.name)})"
        for base in _bases(file)
    ]
    if bases:
        facts.append(f"further keys: {', '.join(bases)}".replace("[_", "[\\_"))
    return facts


def _bases(file: Path) -> list[Base]:
    """The other files that a file's defaults list adds."""
    others = [base for base in base_files(file) if base != file]
    return [Base(base.parent.relative_to(CONF).as_posix(), base.stem) for base in others]


def _keys(file: Path, package: str) -> list[Key]:
    """The keys of one file; those without a comment have that of a file it is based on.

    Lists that begin in the line below their key are included.
    """
    prefix = f"{package}." if package else ""
    abouts: dict[str, str] = {}
    for base in base_files(file):
        abouts |= {key.name: key.about for key in file_keys(base, prefix) if key.about}
    conf_file = read_conf_file(file)
    values = dotted_values(conf_file.values, conf_file.package)
    keys = [
        key._replace(value=f"[{', '.join(map(str, values[key.name]))}]")
        if not key.value and isinstance(values.get(key.name), list)
        else key
        for key in file_keys(file, prefix)
    ]
    return [key._replace(about=abouts.get(key.name, "")) for key in keys if key.value or key.about]


def _command_line() -> str:
    """The page of the verbs."""
    parts = [
        "# Command line",
        "`fmsd VERB --help` prints a section of this page, and `fmsd --help` prints the list below."
        "\nThe grammar of overrides, paths and exit codes are described in "
        "[The command line](../concepts/command_line.md).",
        f"```text\n{USAGE}\n```",
        *(_verb(verb) for verb in verbs() if (CONF / f"{verb}.yaml").is_file()),
    ]
    return "\n\n".join(parts) + "\n"


def _verb(verb: str) -> str:
    """A verb: its purpose, examples, keys and groups."""
    file = CONF / f"{verb}.yaml"
    about, examples = file_header(file)
    known = verb_groups(verb)
    parts = [f"## {verb}", prose(about), "\n".join(["```bash", *examples, "```"])]
    rows = [
        row(code(key.name), code(key.value), prose(key.about))
        for key in file_keys(file)
        if key.name not in known and (key.value or key.about)
    ]
    if rows:
        parts.append("\n".join([row("key", "default", "meaning"), row("---", "---", "---"), *rows]))
    rows = [
        row(
            f"[`{group}`]({page_of(group).removeprefix('reference/')})",
            code(choice),
            ", ".join(choice_link(group, name, "reference") for name in known[group]),
        )
        for group, choice in default_choices(verb).items()
    ]
    if rows:
        head = [row("group", "default", "choices"), row("---", "---", "---")]
        parts.append("\n".join([*head, *rows]))
    return "\n\n".join(parts)


def prose(text: str) -> str:
    """A comment as Markdown: code spans stay, other marks are escaped, arXiv numbers are links."""
    parts = re.split(r"(`[^`]+`|(?:docs|experiments|benchmarks|conf|fmsd)/[\w./+-]+\w)", text)
    return "".join(
        _escape(part) if place % 2 == 0 else f"`{part.strip('`')}`"
        for place, part in enumerate(parts)
    )


def _escape(text: str) -> str:
    """Text with the marks of Markdown escaped, and with links to arXiv."""
    escaped = MARKS.sub(r"\\\1", html.escape(text, quote=False))
    return ARXIV.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", escaped)


def code(text: str) -> str:
    """A value as code; nothing for no value."""
    if not text:
        return ""
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}".replace("|", "\\|")


def row(*cells: str) -> str:
    """A row of a table."""
    return f"| {' | '.join(cells)} |"
