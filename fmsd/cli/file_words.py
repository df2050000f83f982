"""Words of a command line that are files: of the verbs that take files beside overrides.

Nothing is guessed. A word with an equals sign is an override if its key is one of the verb's, and a
word without one is a file. Any other word is refused, and behind `--` every word is a file.
"""

import re
from collections.abc import Mapping, Sequence

from fmsd.cli.conf_files import dotted_values, read_conf_file
from fmsd.cli.options import split_options
from fmsd.cli.overrides import suggestions
from fmsd.errors import InputError
from fmsd.package_files import CONF

FILE_VERBS = ("predict",)
"""The verbs that take files."""

END = "--"
"""Behind it, all words are files."""


def cut_files(verb: str, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments of a verb in front of `--`, and the files behind it."""
    if verb not in FILE_VERBS or END not in arguments:
        return [*arguments], []
    place = arguments.index(END)
    return [*arguments[:place]], [*arguments[place + 1 :]]


def split_files(
    verb: str, arguments: Sequence[str], groups: Mapping[str, Sequence[str]]
) -> tuple[list[str], list[str]]:
    """The options and overrides among the arguments of a verb, and the files among them.

    Args:
        groups: the choices of each group of the verb's configuration.

    Raises:
        InputError: a word that is neither.
    """
    if verb not in FILE_VERBS:
        return [*arguments], []
    overrides, words = split_options(arguments)
    keys = dotted_values(read_conf_file(CONF / f"{verb}.yaml").values)
    known = {*keys, *groups, "hydra"} - {"defaults"}
    files = []
    for word in words:
        key, sign, _ = word.partition("=")
        name = key.lstrip("+~")
        is_known = re.split(r"[./@]", name)[0] in known
        if word.startswith("-"):
            raise InputError(
                f"fmsd has no option {key}",
                "write overrides without dashes, and the name of a file that begins with one "
                f"behind {END}",
            )
        if sign and not is_known:
            meant = suggestions(name, [*keys], groups)
            hint = f" (did you mean {' or '.join(meant)}?)" if meant else ""
            raise InputError(
                f"{word} sets {name or 'nothing'}, which is no key of fmsd {verb}{hint}",
                f"if it is a file, write it behind {END}; fmsd {verb} --help shows all keys",
            )
        is_override = sign or name in groups or (word.startswith("~") and is_known)
        (overrides if is_override else files).append(word)
    return overrides, files
