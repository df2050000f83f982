"""The forty forgery methods of DF40 by family."""

from collections.abc import Sequence

from fmsd.errors import InputError

# fmt: off
FAMILIES: dict[str, tuple[str, ...]] = {
    "FS": (
        "fsgan", "faceswap", "simswap", "inswap", "blendface", "uniface", "mobileswap", "e4s",
        "facedancer", "deepfacelab",
    ),
    "FR": (
        "fomm", "facevid2vid", "wav2lip", "MRAA", "one_shot_free", "pirender", "tpsm", "lia",
        "danet", "sadtalker", "mcnet", "hyperreenact", "heygen",
    ),
    "EFS": (
        "VQGAN", "StyleGAN2", "StyleGAN3", "StyleGANXL", "sd2.1", "ddim", "rddm", "pixart", "DiT",
        "SiT", "MidJourney", "whichisreal",
    ),
    "FE": ("CollabDiff", "e4e", "stargan", "starganv2", "styleclip"),
}
# fmt: on
"""The methods of each family, as DF40's lists name them.

FS is face swapping, FR face reenactment, EFS entire face synthesis, FE face editing.
"""

FOLDER_ALIASES = {"whichfaceisreal": "whichisreal", "stargan2": "starganv2"}
"""Methods by the name of their folder, in lower case, where it differs."""

METHODS = {
    method.lower(): method for methods in FAMILIES.values() for method in methods
} | FOLDER_ALIASES
"""Methods by the name of their folder, in lower case."""


def choose_methods(families: Sequence[str], methods: Sequence[str] | None) -> list[str]:
    """The methods of the chosen families, limited to `methods` where these are given.

    Raises:
        InputError: an unknown family, or a method that is in none of the families.
    """
    if unknown := [family for family in families if family not in FAMILIES]:
        raise InputError(
            f"DF40 has no family {', '.join(unknown)}",
            f"choose from {', '.join(FAMILIES)} in data.source.families",
        )
    available = [method for family in families for method in FAMILIES[family]]
    if unknown := [method for method in methods or () if method not in available]:
        raise InputError(
            f"The families {', '.join(families)} of DF40 have no method {', '.join(unknown)}",
            f"choose from {', '.join(available)}",
        )
    return [method for method in available if methods is None or method in methods]
