"""Completes a command line for the shells: verbs, groups and their choices, keys, flags and paths.

The scripts in `shells/` call this by the hidden command `fmsd _complete`. It runs at each press of
the key, so it imports neither Hydra nor torch.
"""

import os
import re
import shlex
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from fmsd.cli.conf_files import (
    base_files,
    choice_file,
    choices,
    default_choices,
    dotted_values,
    groups,
    left_out_groups,
    read_conf_file,
)
from fmsd.cli.file_words import END, FILE_VERBS
from fmsd.cli.json_flag import JSON, TABLE_VERBS
from fmsd.cli.options import OPTIONS, config_dirs, is_sweep
from fmsd.cli.overrides import BARE, LISTS, PATHS, PLURAL
from fmsd.errors import InputError
from fmsd.package_files import CONF, PACKAGE

SHELLS = ("bash", "zsh", "fish")

PROGRAM = "@FMSD@"
"""What stands for this program in the scripts."""

FLAGS = ("-m", "--cfg", "--config-dir=", "--help", "--hydra-help")
"""The flags that are proposed, beside `--json`."""

HYDRA_GROUPS = ("hydra/launcher", "hydra/sweeper")
HYDRA_KEYS = {"hydra.run.dir": None, "hydra.sweep.dir": None}
"""Keys of Hydra's own configuration that users of fmsd set."""

BASH_SPECIAL = re.compile(r"[^\w./=+,@%:-]")
"""Characters that need a backslash in bash."""

BASH_SPECIAL_IN = {"'": re.compile(r"'"), '"': re.compile(r'[$`"\\!]')}
"""Characters that have a meaning within an open quote."""

MORE = {"head.normalise": ("feature",)}
"""Values of a switch beside true and false."""

OPEN = ("=", ".", "/", "[", ",")
"""Ends of candidates that go on."""


def shell_script(shell: str) -> str:
    """The script that a shell evaluates to complete `fmsd`.

    It calls this installation by its absolute path, and not the command on the line, which may be
    any file of that name.

    Raises:
        InputError: there is none for this shell.
    """
    if shell not in SHELLS:
        raise InputError(
            f"There is no completion for {shell!r}" if shell else "The name of a shell is missing",
            f"give fmsd completion SHELL, one of {', '.join(SHELLS)}",
        )
    script = (PACKAGE / "cli" / "shells" / f"fmsd.{shell}").read_text(encoding="utf-8")
    python = shell_quote(sys.executable, shell)
    return script.replace(PROGRAM, f"{python} -P -m fmsd")  # -P: without the current folder


def shell_quote(text: str, shell: str) -> str:
    """A text as one word of a shell's line."""
    if shell != "fish":
        return shlex.quote(text)
    return "'" + re.sub(r"['\\]", r"\\\g<0>", text) + "'"


def replies(arguments: Sequence[str], verbs: Sequence[str]) -> list[str]:
    """The lines that the script of a shell gets: each replaces the word at the cursor.

    A reply ends with a blank if the word is complete; fish adds that itself. There are none if the
    line cannot be completed, also where a configuration file is damaged: a prompt is no place for
    messages.

    Args:
        arguments: the shell; then for bash the line up to the cursor, and the characters at which
            bash begins a new word; for the others the words behind `fmsd` up to the cursor.
    """
    try:
        shell, *words = arguments
        line, breaks, quote = "", "", ""
        if shell == "bash":
            line, breaks = words
            (_, *words), quote = split_line(line)
        found = [word for word in candidates(words, verbs) if word.isprintable()]
    except Exception:  # the files of the user may hold anything
        return []
    if shell == "bash":
        return [*bash_replies(found, line, breaks, words[-1], quote)]
    return found if shell == "fish" else [closed(candidate) for candidate in found]


def closed(candidate: str) -> str:
    """A candidate with a blank behind it, unless it goes on."""
    return candidate if candidate.endswith(OPEN) else f"{candidate} "


def bash_replies(
    found: Sequence[str], line: str, breaks: str, word: str, quote: str
) -> Iterator[str]:
    """The replies for bash, which replaces only what follows the last break, `=` or `:` as a rule.

    What was typed stays as it is; what is added is quoted as the line needs it. Within a quote,
    which bash itself closes, candidates with characters that have a meaning there are left out.

    Args:
        found: the candidates.
        word: what was typed of them.
        quote: the quote that is open, or none.
    """
    ends = [
        match.end()
        for match in re.finditer(r"(\\.)|(.)", line)
        if match[2] and match[2] in (quote or breaks)
    ]
    typed = line[ends[-1] :] if ends else line
    for candidate in found:
        added = candidate[len(word) :]
        if not quote:
            yield closed(typed + BASH_SPECIAL.sub(r"\\\g<0>", added))
        elif not BASH_SPECIAL_IN[quote].search(candidate):
            yield typed + added


def split_line(line: str) -> tuple[list[str], str]:
    """The words of a line, of which the last one is at the cursor, and the quote that is open."""
    for quote in ("", "'", '"'):
        try:
            words = shlex.split(f"{line}x{quote}")
        except ValueError:
            continue
        return [*words[:-1], words[-1][:-1]], quote
    return [""], ""


def candidates(words: Sequence[str], verbs: Sequence[str]) -> list[str]:
    """The words that the last one may become, in order.

    Args:
        words: those behind `fmsd`; the last may be empty.
    """
    *before, word = words
    if not before:
        return matching([*verbs, "completion", "help", "--help", "--version"], word)
    verb, *given = before
    if END in given and verb in FILE_VERBS:
        return paths("", word)
    if verb not in verbs:
        return matching({"help": verbs, "completion": SHELLS}.get(verb, ()), word)
    return verb_candidates(verb, given, word)


def verb_candidates(verb: str, given: Sequence[str], word: str) -> list[str]:
    """The words that the last one may become behind a verb and what was given already."""
    if given and (option := OPTIONS.get(given[-1])) and option.value and not word.startswith("-"):
        return flag_values(option.value, "", word)
    if word.startswith("-"):
        return flag_candidates(verb, word)
    key, sign, value = word.partition("=")
    if sign:
        return value_candidates(verb, given, key, value)
    bare = paths("", word) if verb in (*BARE, *FILE_VERBS) and word else []
    return [*key_candidates(verb, given, word), *bare]


def flag_candidates(verb: str, word: str) -> list[str]:
    """The flags of a verb, or the values behind the equals sign of one."""
    name, sign, value = word.partition("=")
    if sign:
        return flag_values(OPTIONS[name].value, f"{name}=", value) if name in OPTIONS else []
    return matching([*FLAGS, *([JSON] if verb in TABLE_VERBS else [])], word)


def flag_values(kind: str, start: str, word: str) -> list[str]:
    """The values of an option of Hydra.

    Args:
        kind: see `fmsd.cli.options.Option.value`.
        start: what stands in front of the value.
    """
    if kind in ("FOLDER", "FILE"):
        return paths(start, word)
    return [start + name for name in matching(kind.split("|"), word)] if "|" in kind else []


def matching(names: Iterable[str], start: str) -> list[str]:
    """The names with a start, each once."""
    return [name for name in dict.fromkeys(names) if name.startswith(start)]


def known_groups(verb: str) -> list[str]:
    """The groups that a command of a verb may choose from."""
    return [*groups("train" if verb == "reproduce" else verb), *HYDRA_GROUPS]


def key_candidates(verb: str, given: Sequence[str], word: str) -> list[str]:
    """Groups and keys, up to the next dot; `~`, `+` and `++` in front stay."""
    mark = word[: len(word) - len(word.lstrip("+~"))]
    start, sign = word.removeprefix(mark), "" if mark == "~" else "="
    names = [f"{name}{sign}" for name in known_groups(verb)]
    for key in known_values(verb, given):
        if key.startswith(start):
            head, dot, _ = key[len(start) :].partition(".")
            names.append(f"{start}{head}." if dot else f"{key}{sign}")
    if verb == "reproduce":
        names = [*read_conf_file(CONF / "reproduce.yaml").values["steps"], *names]
    return [mark + name for name in matching(names, start)]


def value_candidates(verb: str, given: Sequence[str], key: str, value: str) -> list[str]:
    """The choices of a group, paths behind a key of paths, or the values of a switch."""
    name = key.lstrip("+~")
    several = name in LISTS or is_sweep(given)
    if name in known_groups(verb):
        head, last = split_last(value, name not in PLURAL)
        taken = head.strip("[").split(",")
        options = [*choices(name), *own_choices(given, name)]
        return [
            f"{key}={head}{option}"
            for option in matching(sorted({*options}), last)
            if option not in taken
        ]
    if PATHS.fullmatch(name) or name in LISTS:
        head, last = split_last(value, name not in LISTS) if several else ("", value)
        return paths(f"{key}={head}", last)
    if isinstance(known_values(verb, given).get(name), bool):
        options = ["true", "false", *MORE.get(name, ())]
        return [f"{key}={option}" for option in matching(options, value)]
    return []


def split_last(value: str, single: bool) -> tuple[str, str]:
    """A value up to its last comma, and what follows; a list begins with a bracket.

    Args:
        single: whether a bracket has no meaning here.
    """
    match = re.match(r"(.*,)?" if single else r"(.*[\[,])?", value, re.DOTALL)
    head = (match and match[1]) or ""
    return head, value.removeprefix(head)


def own_choices(given: Sequence[str], group: str) -> Iterator[str]:
    """The choices of a group in the folders of `--config-dir`."""
    for folder in config_dirs(given):
        yield from (path.stem for path in (folder / group).glob("[!_]*.yaml"))


def files_of_choice(
    group: str, name: str, own: Sequence[Path], left_out: Collection[str]
) -> Iterator[Path]:
    """Yields the files that a choice is based on, then its own; nothing if there is none.

    Args:
        own: folders of `--config-dir`, which Hydra searches last.
        left_out: nested groups whose files are skipped.
    """
    file = choice_file(group, name)
    if file.is_file():
        yield from base_files(file, left_out)
    elif files := [path for folder in own if (path := folder / group / f"{name}.yaml").is_file()]:
        for entry in read_conf_file(files[0], group).values.get("defaults", []):
            if isinstance(entry, str):
                yield from files_of_choice(group, entry.partition("@")[0], own, left_out)
        yield files[0]


def known_values(verb: str, given: Sequence[str]) -> Mapping[str, object]:
    """By dotted key, the values of a verb and of its groups with the choices of a command.

    Args:
        given: the arguments; each choice of a sweep counts.
    """
    if verb == "reproduce":
        values = read_conf_file(CONF / "reproduce.yaml").values
        own = {key: value for key, value in values.items() if key != "steps"}
        return {**own, **known_values("train", given)}
    chosen = {group: [choice] for group, choice in default_choices(verb).items()}
    for argument in given:
        key, sign, value = argument.lstrip("+").partition("=")
        if sign and key in chosen:
            chosen[key] = value.strip("[]").split(",")
    values = dotted_values(read_conf_file(CONF / f"{verb}.yaml").values)
    left_out, own = left_out_groups(verb), config_dirs(given)
    for group, names in chosen.items():
        for name in names:
            for part in files_of_choice(group, name, own, left_out):
                package, content = read_conf_file(part, group)
                values |= dotted_values(content, package)
    return HYDRA_KEYS | {
        key: value
        for key, value in values.items()
        if not isinstance(value, dict)
        and not re.search(r"(^|\.)(_|defaults\b|hydra\b)", key)
        and key not in chosen
    }


def paths(start: str, text: str) -> list[str]:
    """The files and folders that a path may become; a folder ends with a slash.

    Args:
        start: what stands in front of the path.
    """
    folder, slash, name = text.rpartition("/")
    place = os.path.expanduser(folder + slash) or "."  # noqa: PTH111  leaves unknown users alone
    try:
        with os.scandir(place) as entries:
            found = [
                f"{start}{folder}{slash}{entry.name}{'/' if entry.is_dir() else ''}"
                for entry in entries
                if entry.name.startswith(name) and (name or not entry.name.startswith("."))
            ]
    except OSError:
        return []
    return sorted(found)
