"""The command-line reference: what `fmsd --help` and `fmsd VERB --help` print, as one page."""

from comments import code, prose, row
from configuration import choice_link, page_of
from navigation import verbs

from fmsd.cli.conf_files import default_choices, groups
from fmsd.cli.help import file_header, file_keys
from fmsd.cli.main import USAGE
from fmsd.package_files import CONF

PAGE = "reference/command_line.md"


def page() -> str:
    """The Markdown of the page."""
    parts = [
        "# Command line",
        "`fmsd VERB --help` prints a section of this page, and `fmsd --help` prints the list below."
        "\nThe grammar of overrides, paths and exit codes are described in "
        "[The command line](../concepts/command_line.md).",
        f"```text\n{USAGE}\n```",
        *(_section(verb) for verb in verbs() if (CONF / f"{verb}.yaml").is_file()),
    ]
    return "\n\n".join(parts) + "\n"


def _section(verb: str) -> str:
    """A verb: its purpose, examples, keys and groups."""
    file = CONF / f"{verb}.yaml"
    about, examples = file_header(file)
    known = groups(verb)
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
