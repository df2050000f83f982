"""The protocol of a report in sentences, without digests."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fmsd.report.comparability import differing_facts, shorten_fact

SAMPLING = {"spread": "spread evenly from first to last", "first": "the first ones"}
NAMING = {
    "id": "A video is identified by dataset, forgery, compression and name",
    "folder": "A video is identified by the name of its folder alone",
}
VIDEO_SCORES = {
    "mean": "the mean of its frames' probabilities",
    "median": "the median of its frames' probabilities",
    "max": "the highest probability of its frames",
    "top5": "the mean of its five highest frame probabilities",
}
SELECTIONS = {
    "iid": "on a validation split of the training data",
    "leave_one_domain_out": "on a forgery that is not trained on",
    "last": "by no data: they are those of the last epoch",
    "oracle": "on the test data themselves, so that no row is a result about generalisation",
    "unknown": "in a way that is not known",
    "fixed": "by no data: these are merges with fixed coefficients",
    "search": "on validation data that chose the coefficients of a merge",
}

DIGESTED = frozenset({"dataset", "level", "manifest", "pixels"})
"""Facts that say which frames were tested; every dataset has its own."""

NAMES: Mapping[str, str] = {
    "protocol": "the protocol",
    "sampling": "the choice of frames",
    "frames": "the number of frames per video",
    "videos": "the number of videos",
    "naming": "what a video is",
    "compression": "the compression",
    "forgeries": "the forgeries",
    "crops": "the face crops",
    "size": "the size of the images",
    "decoder": "the decoder of images",
    "video_score": "the score of a video",
    "train": "the training data",
    "augment": "the augmentation",
    "left_out": "the forgery that is left out",
    "selection": "what chose the weights",
    "train_frames": "the frames per training video",
    "overlap": "the number of test frames that are training frames",
}
"""The facts in words."""


def protocol_sentences(stamps: Sequence[Mapping[str, Any]]) -> list[str]:
    """What all results have in common, and what differs between them, in sentences.

    Args:
        stamps: the facts behind each stamp.
    """
    differing = differing_facts(stamps)
    common = {name: value for name, value in stamps[0].items() if name not in differing}
    sentences = [sentence for write in SENTENCES if (sentence := write(common))]
    others = [
        f"{NAMES.get(name, name.replace('_', ' '))}: {shorten_fact(value)}"
        for name, value in common.items()
        if name not in (*TOLD, *DIGESTED)
    ]
    if others:
        sentences.append(f"Also equal: {'; '.join(others)}.")
    if names := [NAMES.get(name, name) for name in differing if name not in DIGESTED]:
        sentences.append(f"The results differ in {_enumerated(names)}, see the table of stamps.")
    return sentences


def _frames(facts: Mapping[str, Any]) -> str:
    """Which frames of which videos are tested."""
    if not {"frames", "sampling"} <= facts.keys():
        return ""
    count = facts["frames"]
    how = SAMPLING.get(str(facts["sampling"]), str(facts["sampling"]))
    frames = "All frames" if count is None else f"At most {count} frames"
    text = f"{frames} of a video are tested{'' if count is None else f', {how}'}"
    if facts.get("videos") is not None:
        text += f", of at most {facts['videos']} videos per forgery"
    if isinstance(facts.get("forgeries"), list):
        text += f", of the forgeries {_enumerated([str(name) for name in facts['forgeries']])} only"
    return f"{text}."


def _videos(facts: Mapping[str, Any]) -> str:
    """What a video and its score are."""
    parts = []
    if "naming" in facts:
        parts.append(NAMING.get(str(facts["naming"]), f"Videos are named by {facts['naming']}"))
    if "video_score" in facts:
        kind = str(facts["video_score"])
        parts.append(f"its score is {VIDEO_SCORES.get(kind, kind)}")
    text = "; ".join(parts)
    return text and f"{text[0].upper()}{text[1:]}."


def _images(facts: Mapping[str, Any]) -> str:
    """What the network sees."""
    if "size" not in facts:
        return ""
    text = f"The network sees images of {facts['size']} x {facts['size']} pixels"
    if facts.get("decoder"):
        text += f", decoded by {facts['decoder']}"
    if "compression" in facts and any(facts["compression"] or ()):
        text += f"; compression {_enumerated([str(name) for name in facts['compression']])}"
    if "crops" in facts:
        text += "; how faces were cropped is " + (
            "not recorded" if facts["crops"] is None else "the same for all"
        )
    return f"{text}."


def _training(facts: Mapping[str, Any]) -> str:
    """What was trained on, and what chose the weights."""
    parts = []
    if isinstance(facts.get("train"), dict) and facts["train"]:
        names = sorted(facts["train"])
        parts.append(
            "what the detectors were trained on is not known"
            if names == ["unknown"]
            else f"all rows are trained on the same frames of {_enumerated(names)}"
        )
    if facts.get("left_out") is not None:
        parts.append(f"without {facts['left_out']}")
    if facts.get("augment") not in (None, "unknown"):
        parts.append(f"with the augmentation {facts['augment']}")
    if "selection" in facts:
        rule = str(facts["selection"])
        parts.append(f"weights are chosen {SELECTIONS.get(rule, f'by {rule}')}")
    text = ", ".join(parts)
    return text and f"{text[0].upper()}{text[1:]}."


def _protocol(facts: Mapping[str, Any]) -> str:
    """The name of the protocol, where it is not this package's own."""
    if facts.get("protocol") in (None, "fmsd"):
        return ""
    return f"The protocol is {facts['protocol']}."


SENTENCES: Sequence[Callable[[Mapping[str, Any]], str]] = (
    _protocol,
    _frames,
    _videos,
    _images,
    _training,
)
"""The sentences on facts that all results share; empty where a fact is not shared."""

TOLD = frozenset(
    {
        "protocol", "sampling", "frames", "videos", "naming", "compression", "forgeries", "crops",
        "size", "decoder", "video_score", "train", "augment", "left_out", "selection",
    }
)  # fmt: skip
"""The facts that these sentences tell."""


def _enumerated(words: Sequence[str]) -> str:
    """Words as text: `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
