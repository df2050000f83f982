"""Names of folders, datasets and forgeries: as the command line gives them, and as a remedy writes them for it."""

import re
import shlex
from collections.abc import Mapping, Sequence

from fmsd.errors import InputError


def as_name(given: object, key: str) -> str:
    """The name that a key gives; a whole number names what is called so, as the command line reads `0` as a number.

    Raises:
        InputError: something whose spelling is lost, such as 1.0, true or null.
    """
    if isinstance(given, str):
        return given
    if type(given) is int:
        return str(given)
    raise _lost(given, key, f"'{key}=\"NAME\"'")


def as_names(given: object, key: str) -> list[str]:
    """The names that a key gives, a list or a single one.

    Raises:
        InputError: something whose spelling is lost, such as 1.0, true or null.
    """
    listed = given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    if odd := [value for value in listed if not isinstance(value, str) and type(value) is not int]:
        raise _lost(odd[0], key, f"'{key}=[\"NAME\"]'")
    return [str(value) for value in listed]


def _lost(given: object, key: str, spelt: str) -> InputError:
    read = "null" if given is None else f"{given} ({type(given).__name__})"
    return InputError(
        f"{key} gives {read} where a name is wanted",
        f"put the name in double quotes inside the single ones: {spelt}",
    )


def list_override(key: str, wanted: Sequence[str]) -> str:
    """The word of a command line, quoted for a shell, that gives a list of names."""
    return _quoted(f"{key}=[{','.join(map(_value, wanted))}]")


def mapping_override(key: str, wanted: Mapping[str, object]) -> str | None:
    """The word of a command line, quoted for a shell, that adds names with their values to a mapping.

    Returns:
        None where a name has a character that no key on the command line can have.
    """
    if not all(_PLAIN.fullmatch(_ESCAPED.sub("", key_)) for key_ in wanted):
        return None
    pairs = ", ".join(
        _ESCAPED.sub(lambda found: f"\\{found[0]}", key_) + f": {value}"
        for key_, value in wanted.items()
    )
    return _quoted(f"+{key}={{{pairs}}}")


def entry_override(key: str, wanted: str, value: object) -> str | None:
    """The word of a command line, quoted for a shell, that adds one name with its value to a mapping; None as for `mapping_override`."""
    return (
        _quoted(f"+{key}.{wanted}={value}")
        if re.fullmatch(r"\w+", wanted, re.ASCII)
        else mapping_override(key, {wanted: value})
    )


_PLAIN = re.compile(
    r"0|[1-9][0-9]*|(?=.*[A-DF-Za-df-z])(?!-?(?:true|false|null|nan|inf)$)[A-Za-z0-9_-][A-Za-z0-9_.@%+-]*",
    re.IGNORECASE,
)
"""Names that Hydra reads as they stand: whole numbers, and what is neither a number, a truth value nor null."""

_ESCAPED = re.compile(r"[ ()\[\]{}:=,]")
"""Characters that a key may have behind a backslash."""


def _quoted(word: str) -> str:
    """The word for a shell; quoted also where it need not be, so that it stands out in a sentence."""
    quoted = shlex.quote(word)
    return f"'{word}'" if quoted == word else quoted


def _value(wanted: str) -> str:
    if _PLAIN.fullmatch(wanted):
        return wanted
    quoted = re.sub(
        r'(\\*)("|$)',
        lambda found: 2 * found[1] + ('\\"' if found[2] else ""),
        wanted.replace("${", "\\${"),
    )
    return f'"{quoted}"'
