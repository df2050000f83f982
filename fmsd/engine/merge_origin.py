"""The origin of a merge: the facts about its experts' trainings that tests of it depend on."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from fmsd.engine.stamp import Facts
from fmsd.runs.folder import Run


def merged_origin(experts: Sequence[Path], selection: str) -> Facts:
    """Returns the facts of the experts' trainings, joined by `+` where they differ.

    Files of weights have no facts: their training data is `unknown`. If an expert was selected by
    another rule than `iid`, the selection names that rule too: a merge of what the test data
    selected is selected by the test data.

    Args:
        experts: folders of runs, or files of weights.
        selection: how the merger's coefficients were selected.
    """
    known = [Run(path).origin() for path in experts if path.is_dir()]
    train = [name_and_digest for one in known for name_and_digest in one["train"].items()]
    if len(known) < len(experts):
        train.append(("unknown", ""))
    rules = join_labels(one["selection"] for one in known)
    frames = join_labels(one["train_frames"] for one in known if "train_frames" in one)
    return {
        "selection": selection if rules in ("", "iid") else f"{selection} of {rules}",
        "augment": join_labels(one["augment"] for one in known),
        "train": {
            name: join_labels(digest for other, digest in train if other == name)
            for name in sorted({name for name, _ in train})
        },
        "left_out": join_labels(one["left_out"] for one in known if one["left_out"]) or None,
        **({"train_frames": frames} if frames else {}),
    }


def join_labels(labels: Iterable[str]) -> str:
    """Returns the sorted union of `+`-joined labels, joined by `+`."""
    return "+".join(sorted({part for label in labels for part in label.split("+")}))
