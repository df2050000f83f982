"""Names of the real video that a fake was made from, by the name of the fake.

Each function is the naming of one dataset, as its authors document it or as its tree shows it; a
name that does not have this form gives None.
"""

import re
from collections.abc import Callable

PartnerName = Callable[[str], str | None]
"""The name of the real video by the name of a fake."""


def target_sequence(name: str) -> str | None:
    """FaceForensics++ names a fake TARGET_SOURCE: `033_097` is the video 033 with another face."""
    return _expand(r"(\d{3})_\d{3}", r"\1", name)


def target_of_actor(name: str) -> str | None:
    """DeeperForensics-1.0 names a fake TARGET_ACTOR: `000_M101` is FaceForensics++'s 000."""
    return _expand(r"(\d{3})_[MW]\d{3}", r"\1", name)


def target_scene(name: str) -> str | None:
    """DeepFakeDetection names a fake TARGET_SOURCE__SCENE__ID, its real videos ACTOR__SCENE."""
    return _expand(r"(\d{2})_\d{2}(__.+)__[0-9A-Z]{8}", r"\1\2", name)


def target_clip(name: str) -> str | None:
    """Celeb-DF names a fake TARGET_DONOR_CLIP, its real videos TARGET_CLIP: `id0_id1_0000`."""
    return _expand(r"(id\d+)_id\d+(_\d{4})", r"\1\2", name)


def target_clip_tagged(name: str) -> str | None:
    """DFDM names a fake TARGET_DONOR_CLIP_TAG after Celeb-DF: `id28_id20_0008_4dfaker`."""
    return _expand(r"(id\d+)_id\d+(_\d{4})_\w[\w-]*", r"\1\2", name)


def source_sequence(name: str, generator: str) -> str | None:
    """SynthForensics names a video after a real one of FaceForensics++ or DeepFakeDetection.

    The name of the generator may follow, in any case: `033`, `033_Helios_T2V`,
    `01__exit_phone_room_wan2_1_i2v`.

    Args:
        generator: with its condition, as it may follow the name: `wan2_1_i2v`.
    """
    end = f"_{generator}".casefold()
    real = name[: -len(end)] if name.casefold().endswith(end) else name
    return _expand(r"(\d{3}|\d{2}__.+)", r"\1", real)


def unsuffixed(name: str) -> str | None:
    """UADFV names the fake of the video 0000 `0000_fake`."""
    return _expand(r"(.+)_fake", r"\1", name)


def _expand(pattern: str, template: str, name: str) -> str | None:
    match = re.fullmatch(pattern, name, re.ASCII)
    return match.expand(template) if match else None
