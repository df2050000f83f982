"""Names in overrides: parsed from the command line, and quoted for it in remedies."""

import re
import shlex
from collections.abc import Mapping, Sequence

from fmsd.errors import InputError
from fmsd.quoting import hydra_quote


def as_name(given: object, key: str) -> str:
    """The name that an override gives; a whole number stands for the name with its digits.

    The command line parses the name `0` as a number.

    Args:
        given: the parsed value.
        key: the override, for the message.

    Raises:
        InputError: a value whose spelling is lost, such as 1.0, true or null.
    """
    if isinstance(given, str):
        return given
    if type(given) is int:
        return str(given)
    raise _lost_spelling(given, key, f"'{key}=\"NAME\"'")


def as_names(given: object, key: str) -> list[str]:
    """The names that an override gives, as a list or a single one.

    Raises:
        InputError: a value whose spelling is lost, such as 1.0, true or null.
    """
    listed = given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    if invalid := [
        value for value in listed if not isinstance(value, str) and type(value) is not int
    ]:
        raise _lost_spelling(invalid[0], key, f"'{key}=[\"NAME\"]'")
    return [str(value) for value in listed]


def _lost_spelling(given: object, key: str, spelt: str) -> InputError:
    """The error for a value that was parsed as something else than a name."""
    read = "null" if given is None else f"{given} ({type(given).__name__})"
    return InputError(
        f"{key} gives {read} where a name is wanted",
        f"put the name in double quotes inside the single ones: {spelt}",
    )


def list_override(key: str, names: Sequence[str]) -> str:
    """The override of a key by a list of names, quoted for a shell."""
    return _quote(f"{key}=[{','.join(map(_quote_name, names))}]")


def mapping_override(key: str, values: Mapping[str, object]) -> str | None:
    """The override that adds names with their values to a mapping, quoted for a shell.

    Returns:
        None where a name has a character that no key on the command line can have.
    """
    if not all(_PLAIN.fullmatch(_ESCAPED.sub("", name)) for name in values):
        return None
    pairs = ", ".join(
        _ESCAPED.sub(lambda match: f"\\{match[0]}", name) + f": {value}"
        for name, value in values.items()
    )
    return _quote(f"+{key}={{{pairs}}}")


def entry_override(key: str, name: str, value: object) -> str | None:
    """The override that adds one name with its value to a mapping; None as `mapping_override`."""
    return (
        _quote(f"+{key}.{name}={value}")
        if re.fullmatch(r"\w+", name, re.ASCII)
        else mapping_override(key, {name: value})
    )


_PLAIN = re.compile(
    r"0|[1-9][0-9]*|(?=.*[A-DF-Za-df-z])(?!-?(?:true|false|null|nan|inf)$)[A-Za-z0-9_-][A-Za-z0-9_.@%+-]*",
    re.IGNORECASE,
)
"""Names that Hydra parses without quotes: integers, and words that are no number, bool or null."""

_ESCAPED = re.compile(r"[ ()\[\]{}:=,]")
"""Characters that a key may have after a backslash."""


def _quote(word: str) -> str:
    """An override in quotes for a shell; always quoted, so that it stands out in a sentence."""
    quoted = shlex.quote(word)
    return f"'{word}'" if quoted == word else quoted


def _quote_name(name: str) -> str:
    """A name as Hydra parses it, in double quotes where it needs them."""
    return name if _PLAIN.fullmatch(name) else hydra_quote(name, '"')
