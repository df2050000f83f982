"""Completes a command line for the shells: verbs, groups and their choices, keys, flags and paths.

The scripts in `shells/` call this by the hidden command `fmsd _complete`. It runs at each press of
the key, so it imports neither Hydra nor torch.
"""

import itertools
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from fmsd.cli.json_flag import JSON, SWEEP_FLAGS, TABLE_VERBS
from fmsd.cli.overrides import BARE, LISTS, PATHS, PLURAL
from fmsd.errors import InputError
from fmsd.package_files import CONF, PACKAGE

SHELLS = ("bash", "zsh", "fish")

FLAGS = ("-m", "--cfg", "--config-dir=", "--help", "--hydra-help")
"""The flags that are proposed, beside `--json`."""

FOLDER_FLAGS = ("--config-dir", "-cd")

FLAG_VALUES = dict.fromkeys(("--cfg", "-c"), ("job", "hydra", "all")) | dict.fromkeys(
    FOLDER_FLAGS, ()
)
"""The values that follow a flag; where there are none, it is followed by a path."""

HYDRA_GROUPS = ("hydra/launcher", "hydra/sweeper")
HYDRA_KEYS = {"hydra.run.dir": None, "hydra.sweep.dir": None}
"""Keys of Hydra's own configuration that users of fmsd set."""

MOST_FILES = 10_000
"""Files of a folder that are looked at."""

BASH_SPECIAL = re.compile(r"[^\w./=+,@%:\[\]-]")
"""Characters that need a backslash in bash."""

OPEN = ("=", ".", "/", "[", ",")
"""Ends of candidates that go on."""


def shell_script(shell: str) -> str:
    """The script that a shell evaluates to complete `fmsd`.

    Raises:
        InputError: there is none for this shell.
    """
    if shell not in SHELLS:
        raise InputError(
            f"There is no completion for {shell!r}" if shell else "The name of a shell is missing",
            f"give fmsd completion SHELL, one of {', '.join(SHELLS)}",
        )
    return (PACKAGE / "cli" / "shells" / f"fmsd.{shell}").read_text(encoding="utf-8")


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
        if shell == "bash":
            line, breaks = words
            return bash_replies(line, breaks, verbs)
        found = candidates(words, verbs)
    except (InputError, OSError, ValueError):
        return []
    return found if shell == "fish" else [closed(candidate) for candidate in found]


def closed(candidate: str) -> str:
    """A candidate with a blank behind it, unless it goes on."""
    return candidate if candidate.endswith(OPEN) else f"{candidate} "


def bash_replies(line: str, breaks: str, verbs: Sequence[str]) -> list[str]:
    """The replies for bash, which replaces only what follows the last break, `=` or `:` as a rule.

    What was typed stays as it is; what is added is quoted as the line needs it.
    """
    words, quote = split_line(line)
    if quote:
        start = line.rindex(quote) + 1
    else:
        ends = [match.end() for match in re.finditer(r"(\\.)|(.)", line) if match[2] in [*breaks]]
        start = ends[-1] if ends else 0
    typed, length = line[start:], len(words[-1])
    added = (candidate[length:] for candidate in candidates(words[1:], verbs))
    return [
        closed(typed + (text if quote else BASH_SPECIAL.sub(r"\\\g<0>", text))) for text in added
    ]


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
    if verb not in verbs:
        return matching({"help": verbs, "completion": SHELLS}.get(verb, ()), word)
    if word.startswith("-") or before[-1] in FLAG_VALUES:
        return flag_candidates(verb, before[-1], word)
    key, sign, value = word.partition("=")
    if sign:
        return value_candidates(verb, given, key, value)
    bare = paths("", word) if verb in BARE and word else []
    return [*key_candidates(verb, given, word), *bare]


def flag_candidates(verb: str, before: str, word: str) -> list[str]:
    """The flags of a verb, or the values of the flag in front."""
    if before in FLAG_VALUES:
        values = FLAG_VALUES[before]
        return matching(values, word) if values else paths("", word)
    key, sign, folder = word.partition("=")
    if sign:
        return paths(f"{key}=", folder) if key in FOLDER_FLAGS else []
    return matching([*FLAGS, *([JSON] if verb in TABLE_VERBS else [])], word)


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
    """The choices of a group, paths behind a key of paths, or true and false."""
    name = key.lstrip("+~")
    several = name in LISTS or any(argument in SWEEP_FLAGS for argument in given)
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
        return [f"{key}={option}" for option in matching(("true", "false"), value)]
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
    """The choices of a group in the folder of `--config-dir`."""
    for before, argument in itertools.pairwise(["", *given]):
        key, _, folder = argument.partition("=")
        if before in FOLDER_FLAGS:
            folder = argument
        elif key not in FOLDER_FLAGS:
            continue
        place = Path(os.path.expanduser(folder), group)  # noqa: PTH111  leaves unknown users alone
        yield from (path.stem for path in place.glob("[!_]*.yaml"))


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
    left_out = left_out_groups(verb)
    for group, names in chosen.items():
        for name in names:
            file = choice_file(group, name)
            for part in base_files(file, left_out) if file.is_file() else ():
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
                for entry in itertools.islice(entries, MOST_FILES)
                if entry.name.startswith(name) and (name or not entry.name.startswith("."))
            ]
    except OSError:
        return []
    return sorted(path for path in found if path.isprintable())
