"""Pictures: what they show is taken from the figure's own contents."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmsd.mask import Layer, LayerMask, MaskHistory, Masking, choose
from fmsd.report import plots


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        image.load()
        return image.size


@pytest.mark.parametrize(
    "layers", [["blocks.0.attn.qkv"], [f"layers.{i}.blocks.{j}.{kind}" for i in range(4) for j in range(6) for kind in ("attn.qkv", "mlp.fc1")]]
)
def test_a_mask_of_any_size_is_drawn(layers: list[str], tmp_path: Path) -> None:
    plots.layer_mask(choose(Masking(bias="random"), layers), tmp_path / "mask.png")
    width, height = size(tmp_path / "mask.png")
    assert width > 300
    assert height > 200
    assert [path.name for path in tmp_path.iterdir()] == ["mask.png"]


def test_the_heat_map_has_a_cell_per_layer_and_a_dot_per_layer_that_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(plots, "write", lambda figure, path: drawn.append(figure))
    mask = LayerMask(
        {"bias": "signal"}, (Layer("blocks.0.attn.qkv", 0.2, False), Layer("blocks.0.attn.proj", 0.9, True), Layer("blocks.1.attn.qkv", 0.5, True))
    )
    plots.layer_mask(mask, tmp_path / "x.png")
    axes = drawn[0].axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array().filled(np.nan), [[0.2, 0.5], [0.9, np.nan]])
    assert {tuple(place) for place in axes.collections[0].get_offsets()} == {(0, 1), (1, 0)}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["attn.qkv", "attn.proj"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1"]


def test_the_history_shows_who_learned_when(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    units = [f"blocks.{block}.attn.qkv.artifacts.{k}" for block in range(2) for k in range(2)]
    history = MaskHistory(units, [5, 10, 15], [[True, False, True, False]] * 2 + [[False, True, False, True]], [[0.1, 0.2, 0.3, 0.4]] * 3)
    plots.mask_history(history, tmp_path / "history.png")
    assert size(tmp_path / "history.png")[0] > 300
    assert json.loads(history.text())["active"][2] == [False, True, False, True]
    drawn = []
    monkeypatch.setattr(plots, "write", lambda figure, path: drawn.append(figure))
    plots.mask_history(history, tmp_path / "x.png")
    axes = drawn[0].axes[0]
    shown = axes.images[0].get_array()
    np.testing.assert_array_equal(shown.mask, [[False, False, True], [True, True, False]] * 2)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["5", "10", "15"]
