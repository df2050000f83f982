"""The columns of a file of scores, found by their whole names."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fmsd.errors import InputError
from fmsd.quoting import hydra_quote, printable

COLUMN_WORDS: Mapping[str, tuple[str, ...]] = {
    "key": (
        "key", "id", "name", "path", "file", "filename", "file_name", "filepath", "file_path",
        "frame", "frame_path", "frame_id", "image", "image_path", "image_name", "image_id", "img",
        "img_path", "img_name", "video", "video_path", "video_name", "video_id", "clip",
    ),
    "score": (
        "score", "scores", "prob", "probs", "probability", "pred", "preds", "prediction",
        "predictions", "logit", "logits", "output", "fake_prob", "prob_fake", "p_fake",
        "fake_probability", "probability_fake", "fake_score", "score_fake",
    ),
    "dataset": ("dataset", "dataset_name"),
    "label": ("label", "labels", "target", "targets", "gt", "ground_truth", "y_true"),
}  # fmt: skip
"""By what a column holds, the names that it may have, in any case."""

REQUIRED = ("key", "score")
PLAIN = re.compile("[A-Za-z_][A-Za-z0-9_-]*")
WORDS = ("null", "true", "false", "nan", "inf")
"""Texts that Hydra's grammar reads as they are, and those among them that are other values."""

NUMBER = re.compile(r"[+-]?[0-9]*[.,]?[0-9]+([eE][+-]?[0-9]+)?")
SHOWN = 10
"""Names of columns that a message lists, at most."""


EXAMPLE = {"key": "image_path", "score": "prob_fake"}


def columns_override(columns: Mapping[str, str | None]) -> str:
    """The override that names columns, quoted for a shell."""
    pairs = ", ".join(f"{role}: {_hydra_text(name)}" for role, name in columns.items())
    return printable(f"columns={shlex.quote(f'{{{pairs}}}')}")


def _hydra_text(name: str | None) -> str:
    """The name of a column as Hydra's grammar reads it."""
    plain = name is not None and name.casefold() not in WORDS and PLAIN.fullmatch(name)
    return "null" if name is None else name if plain else hydra_quote(name, '"')


def check_roles(columns: Mapping[str, Any]) -> dict[str, str | None]:
    """What `columns=` gives, with the names that are numbers as texts.

    Raises:
        InputError: it names something else than keys, scores, datasets and labels, leaves out what
            a score cannot do without, or gives a column two roles.
    """
    roles = dict[str, str | None]()
    for role, given in columns.items():
        if role not in COLUMN_WORDS:
            raise InputError(
                f"columns has {printable(str(role))}, which is none of {', '.join(COLUMN_WORDS)}",
                f"give e.g. {columns_override(EXAMPLE)}",
            )
        name = str(given) if type(given) is int else given
        if (name is None and role in REQUIRED) or not isinstance(name, str | None):
            shown = "null" if name is None else printable(str(name))
            raise InputError(
                f"columns gives {role} the name {shown}",
                f"give the name of a column of the file, in quotes: columns='{{{role}: \"NAME\"}}'",
            )
        if name is not None and name in roles.values():
            raise InputError(
                f"columns gives the column {printable(name)} two roles", "give it one of them"
            )
        roles[role] = name
    return roles


def choose_columns(
    header: Sequence[str], given: Mapping[str, str | None], path: Path
) -> dict[str, str]:
    """The names of the columns by what they hold.

    Args:
        header: the names that the file has.
        given: those that the user names, see `check_roles`.

    Raises:
        InputError: a given column is not there, several may be meant, or a required one is missing.
    """
    chosen = dict[str, str]()
    taken = {*given.values()}
    for role, words in COLUMN_WORDS.items():
        if role in given:
            name = given[role]
            if name is not None and name not in header:
                raise InputError(
                    f"{path} has no column {printable(name)}",
                    f"it has {_listed(header)}; their case counts",
                )
            found = [each for each in header if each == name]
        else:
            found = [
                name for name in header if name.strip().casefold() in words and name not in taken
            ]
        if len(found) > 1:
            raise InputError(
                f"{path} has several columns that may hold the {role}: {_listed(found)}",
                "rename one of them in the file"
                if len({*found}) < len(found)
                else f"name the one that does: {columns_override({**given, role: found[0]})}",
            )
        if not found and role in REQUIRED:
            raise _without_column(header, given, role, path)
        if found:
            chosen[role] = found[0]
    return chosen


def _without_column(
    header: Sequence[str], given: Mapping[str, str | None], role: str, path: Path
) -> InputError:
    """The refusal of a file without a column of a known name for keys or scores."""
    words = COLUMN_WORDS[role]
    message = f"{path} has no column of a known name for the {role}: it has {_listed(header)}"
    if len({*header}.difference(given.values())) + len(given) < len(REQUIRED):
        return InputError(
            message,
            "give it a column of keys and one of scores, in a CSV file with commas, semicolons or "
            "tabs between them",
        )
    values = any(NUMBER.fullmatch(name.strip()) for name in header)
    return InputError(
        message,
        f"{'if these are values, write a first line such as path,score; else ' if values else ''}"
        f"name it: {columns_override({**given, role: 'NAME'})}; known are {', '.join(words)}",
    )


def _listed(names: Sequence[str]) -> str:
    shown = [printable(name) or "one without a name" for name in names[:SHOWN]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "") or "none"
