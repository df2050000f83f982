"""The columns of a file of scores, found by their whole names."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from fmsd.errors import InputError
from fmsd.quoting import printable

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
SHOWN = 10
"""Names of columns that a message lists, at most."""


def check_roles(columns: Mapping[str, str | None]) -> None:
    """Checks what `columns=` gives.

    Raises:
        InputError: it names something else than keys, scores, datasets and labels, or leaves out
            what a score cannot do without.
    """
    for role, name in columns.items():
        if role not in COLUMN_WORDS:
            raise InputError(
                f"columns has {role}, which is none of {', '.join(COLUMN_WORDS)}",
                "give e.g. columns='{key: image_path, score: prob_fake}'",
            )
        if (name is None and role in REQUIRED) or not isinstance(name, str | None):
            raise InputError(
                f"columns gives {role} the name {name}", "give the name of a column of the file"
            )


def choose_columns(
    header: Sequence[str], given: Mapping[str, str | None], path: Path
) -> dict[str, str]:
    """The names of the columns by what they hold.

    Args:
        header: the names that the file has.
        given: those that the user names, see `fmsd.data.score_files.read_scores`.

    Raises:
        InputError: a given column is not there, several may be meant, or a required one is missing.
    """
    chosen = dict[str, str]()
    for role, words in COLUMN_WORDS.items():
        if role in given:
            name = given[role]
            if name is not None and name not in header:
                raise InputError(
                    f"{path} has no column {printable(name)}", f"it has {_listed(header)}"
                )
            found = [] if name is None else [name]
        else:
            taken = set(given.values())
            found = [
                name for name in header if name.strip().casefold() in words and name not in taken
            ]
        if len(found) > 1:
            raise InputError(
                f"{path} has several columns that may hold the {role}: {_listed(found)}",
                f"name the one that does: columns='{{{role}: {printable(found[0])}}}'",
            )
        if not found and role in REQUIRED:
            raise InputError(
                f"{path} has no column of a known name for the {role}: it has {_listed(header)}",
                f"name it: columns='{{{role}: NAME}}'; known are {', '.join(words)}",
            )
        if found:
            chosen[role] = found[0]
    return chosen


def _listed(names: Sequence[str]) -> str:
    shown = [printable(name) or "one without a name" for name in names[:SHOWN]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "") or "none"
