"""Detectors of other code: their contract, what they declare, and how their output is read.

A complete detector, in the file `mine.py` of the working folder:

    import torch
    from torch import nn

    class Detector(nn.Module):
        size = 224  # side of the square images that it is called with
        mean = [0.485, 0.456, 0.406]  # with std; without both it is called with bytes, 0 to 255
        std = [0.229, 0.224, 0.225]
        scale = "logit"  # or "probability", or "score": any number
        higher = "fake"  # what a higher output means; or "real"

        def __init__(self, weights: str) -> None:
            super().__init__()
            self.network = nn.Sequential(nn.Conv2d(3, 8, 16, 16), nn.ReLU(), nn.Flatten())
            self.head = nn.Linear(8 * 14 * 14, 1)
            self.load_state_dict(torch.load(weights, weights_only=True))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.head(self.network(images)).squeeze(1)

    fmsd score detector=py:mine:Detector args.weights=mine.pth data=ff++ out=runs/mine
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np
import torch
from jaxtyping import Float64, UInt8
from numpy import ndarray
from torch import Tensor, nn

from fmsd.errors import InputError
from fmsd.metrics.score_scale import HIGHER, SCALES, Higher, Scale
from fmsd.quoting import printable

Takes = Literal["images", "path"]
"""What a detector is called with."""

TAKES: tuple[str, ...] = get_args(Takes)

DECLARED = "declared"
"""The value of a key for which what the detector declares counts."""

MAX_SIZE = 4096
"""Pixels along a side, at most."""


class OutputError(ValueError):
    """A detector returned something else than one number for each image."""


class ForeignDetector(Protocol):
    """A detector of other code: any callable.

    Attributes of it declare `scale` and `higher`; `size`, `mean` and `std` where it takes images;
    and `takes = "path"` where it reads files itself. See `Declaration`. Keys of the command line
    stand in for attributes and replace them.
    """

    def __call__(self, batch: Any, /) -> Tensor | ndarray | Sequence[float]:
        """The scores of a batch, one each.

        Args:
            batch: RGB images, B x 3 x size x size: uint8 from 0 to 255, or with mean and std
                float32, (image / 255 - mean) / std. Images are resized as those of our own
                detectors, see `fmsd.data.loading.resizing.resize`. With `takes = "path"` a list of
                B absolute paths.

        Returns:
            B numbers: a tensor or array of the shape (B,) or (B, 1), or a list.
        """
        ...


class Normalisation(NamedTuple):
    """The statistics by channel that images are normalised with, of values from 0 to 1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Declaration:
    """What is declared of a detector.

    Args:
        scale: of its scores: `probability`, `logit`, or `score` for any number.
        higher: what a higher score means: `fake` or `real`.
        takes: `images` or `path`.
        size: side of the images that it is called with, in pixels; None where it takes paths.
        normalisation: of these images; None for bytes.
        margin: that of the face crops that it was made for, in sizes of the face; None if unknown.
    """

    scale: Scale
    higher: Higher
    takes: Takes = "images"
    size: int | None = None
    normalisation: Normalisation | None = None
    margin: float | None = None

    def facts(self) -> dict[str, Any]:
        """The declared facts, as the record of a run keeps them."""
        mean, std = self.normalisation or (None, None)
        return {
            "scale": self.scale,
            "higher": self.higher,
            "takes": self.takes,
            "size": self.size,
            "mean": mean and list(mean),
            "std": std and list(std),
            "margin": self.margin,
        }


def declaration(detector: object, given: Mapping[str, Any]) -> Declaration:
    """What a detector and the command line declare of it.

    Args:
        detector: its attributes count where `given` says `declared`.
        given: values by key, from the command line.

    Raises:
        InputError: something is missing, of another kind, or has no effect.
    """
    found = {
        key: getattr(detector, key, None) if value == DECLARED else value
        for key, value in given.items()
    }
    takes = _choice("takes", found["takes"] or "images", TAKES)
    if takes == "path":
        for key in ("size", "mean", "std"):
            if given[key] not in (DECLARED, None):
                raise InputError(
                    f"{key}={_shown(given[key])} would have no effect: the detector takes paths "
                    "and reads the images itself",
                    "leave it out",
                )
        size, normalisation = None, None
    else:
        size, normalisation = _size(found["size"]), _normalisation(found["mean"], found["std"])
    scale: Any = _choice("scale", found["scale"], SCALES)
    higher: Any = _choice("higher", found["higher"], HIGHER)
    margin = _margin(found["margin"])
    return Declaration(scale, higher, takes, size, normalisation, margin)  # pyright: ignore[reportArgumentType]


def _choice(key: str, value: object, choices: Sequence[str]) -> str:
    """A declared word.

    Raises:
        InputError: it is not declared, or another word.
    """
    if isinstance(value, str) and value in choices:
        return value
    what = "does not declare" if value is None else f"declares {_shown(value)} as"
    raise InputError(
        f"The detector {what} its {key}",
        f"give {key}= one of {', '.join(choices)}, or make it an attribute of the detector",
    )


def _size(value: object) -> int:
    """A declared size.

    Raises:
        InputError: it is not declared, or no number of pixels.
    """
    if type(value) is int and 1 <= value <= MAX_SIZE:
        return value
    what = "does not declare" if value is None else f"declares {_shown(value)} as"
    raise InputError(
        f"The detector {what} the size of its images",
        f"give size=PIXELS, 1 to {MAX_SIZE}, or make it an attribute of the detector; one that "
        "reads files itself declares takes=path",
    )


def _margin(value: object) -> float | None:
    """A declared margin.

    Raises:
        InputError: it is no positive number.
    """
    if value is None:
        return None
    if type(value) in (int, float) and 0 < float(value) < 100:  # pyright: ignore[reportArgumentType]
        return float(value)  # pyright: ignore[reportArgumentType]
    raise InputError(
        f"The detector declares {_shown(value)} as its margin",
        "give the side of its face crops in sizes of the face, for example margin=1.3, or null",
    )


def _normalisation(mean: object, std: object) -> Normalisation | None:
    """The declared normalisation.

    Raises:
        InputError: only one of mean and std is declared, or they are not three numbers each.
    """
    if mean is None and std is None:
        return None
    found = Normalisation(_three_numbers("mean", mean), _three_numbers("std", std))
    if not np.isfinite(found).all() or min(found.std) <= 0:
        raise InputError(
            "The detector declares a std that is not positive, or a mean that is not finite",
            "give mean='[R,G,B]' and std='[R,G,B]', of values from 0 to 1",
        )
    return found


def _three_numbers(key: str, value: object) -> tuple[float, float, float]:
    """A declared mean or std.

    Raises:
        InputError: it is no list of three numbers.
    """
    if (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(type(each) in (int, float) for each in value)
    ):
        red, green, blue = map(float, value)
        return red, green, blue
    what = "does not declare" if value is None else f"declares {_shown(value)} as"
    raise InputError(
        f"The detector {what} its {key}",
        f"give three numbers, {key}='[0.5,0.5,0.5]', or mean=null std=null if it is called with "
        "bytes from 0 to 255 and normalises them itself",
    )


def _shown(value: object) -> str:
    """A declared value for a message; of other kinds than plain values the name of the kind."""
    plain = isinstance(value, str | int | float | bool | list | tuple)
    return printable(str(value)[:60]) if plain else f"a {type(value).__name__}"


class ExternalDetector:
    """A foreign detector that is ready to score: on its device, not training, with its input.

    A torch module is set to `eval()`, moved to the device, and called without gradients. Any other
    callable is called with images in the memory of the processor, wherever it computes.

    Args:
        call: the detector.
        declared: what is declared of it.
        device: of a torch module.
    """

    def __init__(
        self, call: Callable[[Any], Any], declared: Declaration, device: torch.device
    ) -> None:
        self.declared = declared
        self.module = call.eval().to(device) if isinstance(call, nn.Module) else None
        self.call = call if self.module is None else self.module
        self.device = device if self.module is not None else torch.device("cpu")
        self.statistics = None
        if declared.normalisation is not None:
            self.statistics = torch.tensor(declared.normalisation, device=self.device)

    def cost(self) -> dict[str, Any]:
        """Device and parameters of a torch module, for the record; nothing of other callables."""
        if self.module is None:
            return {}
        parameters = sum(each.numel() for each in self.module.parameters())
        return {"device": str(self.device), "parameters": parameters}

    def __call__(
        self, batch: UInt8[Tensor, "frames 3 height width"] | Sequence[str]
    ) -> Float64[ndarray, " frames"]:
        """The scores of images or files, as the detector returns them; some may not be finite.

        Raises:
            OutputError: it returned something else than one number each.
            Exception: whatever the detector raises.
        """
        given: Any = self.images(batch) if isinstance(batch, Tensor) else list(batch)
        with torch.inference_mode() if self.module is not None else contextlib.nullcontext():
            return read_scores(self.call(given), len(batch))

    def images(self, batch: UInt8[Tensor, "frames 3 height width"]) -> Tensor:
        """Images as the detector is called with them."""
        moved = batch.to(self.device)
        if self.statistics is None:
            return moved
        mean, std = self.statistics.view(2, 1, 3, 1, 1)
        return (moved.float() / 255 - mean) / std


def read_scores(output: object, count: int) -> Float64[ndarray, " frames"]:
    """The scores that a detector returned for `count` images.

    Raises:
        OutputError: they are not one number each.
    """
    if isinstance(output, Tensor):
        output = output.detach().cpu().double().numpy()
    try:
        values = np.asarray(output, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise OutputError(f"it returned a {type(output).__name__} instead of numbers") from error
    if values.shape not in ((count,), (count, 1)) and not (count == 1 and values.shape == ()):
        shape = " x ".join(map(str, values.shape)) or "one"
        what = "one image" if count == 1 else f"{count} images"
        raise OutputError(f"it returned {shape} numbers for {what} instead of one each")
    return values.reshape(count)
