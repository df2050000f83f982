"""Heat maps over the layers of a network: a row per kind of layer, a column per block."""

import re
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from fmsd.figures.style import COLOURS, literal_text
from fmsd.peft.mask import block_name


def grid_layout(
    layers: Sequence[tuple[str, str]],
) -> tuple[list[str], list[str], list[tuple[int, int]]]:
    """The rows, the columns and the cell of every layer, in the order of first occurrence.

    Args:
        layers: kind and block of every layer.
    """
    kinds = list(dict.fromkeys(kind for kind, _ in layers))
    blocks = list(dict.fromkeys(name for _, name in layers))
    return kinds, blocks, [(kinds.index(kind), blocks.index(name)) for kind, name in layers]


def draw_block_heatmap(
    axes: Axes, kinds: Sequence[str], blocks: Sequence[str], values: np.ndarray
) -> AxesImage:
    """Draws a heat map of kinds x blocks with their names at the axes."""
    image = axes.imshow(values, cmap=COLOURS, aspect="auto")
    axes.set_yticks(range(len(kinds)), [*map(literal_text, kinds)])
    axes.set_xticks(
        range(len(blocks)), block_numbers(blocks), rotation=90 if len(blocks) > 16 else 0
    )
    axes.set_xlabel("block")
    return image


def layer_kind(name: str) -> str:
    """A layer's name inside its block: `attn.qkv` of `blocks.3.attn.qkv`."""
    return name.removeprefix(f"{block_name(name)}.")


def block_numbers(blocks: Sequence[str]) -> list[str]:
    """The numbers in block names: `3` of `blocks.3`; names without a number stay as they are."""
    return [".".join(re.findall(r"\d+", name)) or name for name in blocks]
