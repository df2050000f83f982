"""The labels of DeepfakeBench's JSON files: real or fake, and the forgery method.

A label is real or fake by its last word (`CelebDFv2_real`, `DFDC_Fake`) or by the tables below; any
other label must be given by the user.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fmsd.data import name_overrides
from fmsd.data.sources.labels import Label, forgery_domain, label_from_last_word
from fmsd.data.sources.partner_names import (
    PartnerName,
    target_clip,
    target_scene,
    target_sequence,
    unsuffixed,
)
from fmsd.errors import InputError

LABEL_DOMAINS = {
    "FF-DF": "Deepfakes",
    "FF-F2F": "Face2Face",
    "FF-FS": "FaceSwap",
    "FF-NT": "NeuralTextures",
    "FF-FH": "FaceShifter",
    "FF-SH": "FaceShifter",
    "DFD_fake": "DeepFakeDetection",
    "CelebDFv1_fake": "Celeb-synthesis",
    "CelebDFv2_fake": "Celeb-synthesis",
    "DFDC_Fake": "fake",
    "DFDCP_FakeA": "method_A",
    "DFDCP_FakeB": "method_B",
    "DF_fake": "end_to_end",
    "UADFV_Fake": "fake",
}
"""The domains of labels, as in the datasets' own trees; any other label is its own domain."""

PARTNER_NAMES: dict[str, PartnerName] = {
    "FF-DF": target_sequence,
    "FF-F2F": target_sequence,
    "FF-FS": target_sequence,
    "FF-NT": target_sequence,
    "FF-FH": target_sequence,
    "FF-SH": target_sequence,
    "DFD_fake": target_scene,
    "CelebDFv1_fake": target_clip,
    "CelebDFv2_fake": target_clip,
    "UADFV_Fake": unsuffixed,
}
"""The naming of the fakes of a label, where it gives the real video that each was made from."""

AMBIGUOUS_LABELS: dict[str, Label] = {
    "whichisreal_real": 0,
    "whichisreal_fake": 1,
    "whichfaceisreal_real": 0,
    "whichfaceisreal_fake": 1,
}
"""Labels, in lower case, that contain both words: those of one of DF40's methods."""

_DOMAIN_OF = {name.casefold(): domain for name, domain in LABEL_DOMAINS.items()}
_PARTNER_NAME_OF = {name.casefold(): partner for name, partner in PARTNER_NAMES.items()}


def group_labels(
    groups: Mapping[str, Any], labels: Mapping[str, Label], path: Path
) -> dict[str, Label]:
    """The label of every name in a dataset.

    Raises:
        InputError: a name is ambiguous.
    """
    label_of: dict[str, Label] = {}
    for name in groups:
        label = name_label(name, labels)
        if label is None:
            raise _ambiguous_label(
                f"The label {name!r} in {path} leaves it open whether it is real or fake", name
            )
        label_of[name] = label
    return label_of


def name_label(name: str, labels: Mapping[str, Label]) -> Label | None:
    """The label of a name; None where it has neither word, or both."""
    word = name.strip().casefold()
    if name in labels:
        return labels[name]
    if word in AMBIGUOUS_LABELS:
        return AMBIGUOUS_LABELS[word]
    return 1 if word in _DOMAIN_OF else label_from_last_word(name)


def fake_domain(name: str, path: Path) -> str:
    """The domain of a label of fakes."""
    name_or_alias = _DOMAIN_OF.get(name.strip().casefold(), name.strip())
    return forgery_domain(name_or_alias, f"The label {name!r} in {path}")


def partner_name(label: str, video: str) -> str | None:
    """The name of the real video that a fake was made from; None where its label has no naming."""
    naming = _PARTNER_NAME_OF.get(label.casefold())
    return None if naming is None else naming(video)


def check_own_label(
    own: object,
    name: str,
    video: str,
    label: Label,
    labels: Mapping[str, Label],
    met: dict[str, None],
    path: Path,
) -> None:
    """Refuses a video whose own label differs from that of its group.

    Args:
        own: the video's label.
        name, label: the group's name and label.

    Raises:
        InputError: the label is ambiguous, or is the opposite of the group's.
    """
    own_label = name_label(own, labels) if isinstance(own, str) else None
    if isinstance(own, str):
        met[own] = None
    if own_label == label:
        return
    what = f"{path} lists {video} under {name}, but with the label {own!r} of its own"
    if own_label is None and isinstance(own, str):
        raise _ambiguous_label(what, own)
    raise InputError(what, "correct the one that is wrong in the file")


def check_labels_used(labels: Mapping[str, Label], met: Iterable[str], where: object) -> None:
    """Refuses user-given labels for names that no file has.

    Args:
        met: the names of labels in the files.
        where: the files, for the message.
    """
    if unmet := [name for name in labels if name not in met]:
        raise InputError(
            f"data.source.labels gives {unmet[0]!r}, but the labels of {where} are "
            f"{', '.join(met)}",
            "correct it, or leave it out",
        )


def _ambiguous_label(message: str, name: str) -> InputError:
    """The error for an ambiguous label; its remedy is the override that decides it."""
    real = name_overrides.mapping_override("data.source.labels", {name: 0})
    fake = name_overrides.mapping_override("data.source.labels", {name: 1})
    if real is None:
        return InputError(message, "rename it in the file, so that it ends with _real or _fake")
    return InputError(message, f"label it as real with {real}, or as fake with {fake}")
