"""Pictures: what they show is taken from the figure's own contents."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from fmsd.mask import Layer, LayerMask, MaskHistory, Masking, choose
from fmsd.report import merging, plots


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


KINDS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
VIT = [f"blocks.{place}.{kind}.weight" for place in range(24) for kind in KINDS]
HIERA = [
    "patch_embed.proj.weight",
    *(f"blocks.{place}.{kind}.weight" for place in range(12) for kind in (*(("proj",) if place == 2 else ()), *KINDS)),
]


def tasks(experts: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(experts, 40)) + rng.normal(size=40)


def zero_norms(path: Path) -> None:
    merging.norms(VIT, np.zeros(96), np.zeros((96, 2)), path)


def nan_norms(path: Path) -> None:
    merging.norms(VIT, np.full(96, np.nan), np.full((96, 2), np.nan), path)


PICTURES: dict[str, Callable[[Path], None]] = {
    "one layer": lambda path: merging.norms(["blocks.0.attn.qkv.weight"], [1.0], [[0.5, 0.2]], path),
    "vit": lambda path: merging.norms(VIT, np.linspace(0, 1, 96), np.ones((96, 8)), path),
    "hiera": lambda path: merging.norms(HIERA, torch.ones(len(HIERA)), torch.ones(len(HIERA), 4), path),
    "zero layers' norms": zero_norms,
    "unknown norms": nan_norms,
    "cosines": lambda path: merging.cosines([f"runs/specialist_{place}" for place in range(8)], tasks(8) @ tasks(8).T, path),
    "cosine of one": lambda path: merging.cosines(["one"], [[2.0]], path),
    "cosines of zeros": lambda path: merging.cosines(["one", "two"], np.zeros((2, 2)), path),
    "spectrum": lambda path: merging.spectrum(torch.eye(4, dtype=torch.float64), 2, path),
    "spectrum of one": lambda path: merging.spectrum([[2.0]], 1, path),
    "spectrum of zeros": lambda path: merging.spectrum(np.zeros((3, 3)), 1, path),
    "unknown spectrum": lambda path: merging.spectrum(np.full((3, 3), np.nan), 1, path),
    "domains": lambda path: merging.domain_matrix(
        ["merger=r2m " * 12] * 8, [f"ff++/forgery_{place}" for place in range(40)], np.full((8, 40), 0.7), path
    ),
    "one domain": lambda path: merging.domain_matrix(["run"], ["a/b"], [[0.4]], path),
    "no domain": lambda path: merging.domain_matrix(["run"], ["a/b"], [[np.nan]], path),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("picture", PICTURES)
def test_a_picture_of_a_merge_is_a_whole_file_of_a_sane_size(picture: str, tmp_path: Path) -> None:
    PICTURES[picture](tmp_path / "new" / "merge.png")
    with Image.open(tmp_path / "new" / "merge.png") as image:
        assert image.format == "PNG"
    width, height = size(tmp_path / "new" / "merge.png")
    assert 300 < width < 4500
    assert 150 < height < 2500
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["merge.png"]


def test_a_picture_that_cannot_be_drawn_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("full")

    monkeypatch.setattr(Figure, "savefig", fail)
    for picture in ("vit", "cosines", "spectrum", "domains"):
        with pytest.raises(OSError, match="full"):
            PICTURES[picture](tmp_path / "merge.png")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were drawn, instead of files."""
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "write", lambda figure, path: figures.append(figure))
    return figures


def test_the_grid_of_norms_equals_a_naive_one() -> None:
    rng = np.random.default_rng(0)
    names = HIERA + [name.replace("weight", "bias") for name in HIERA]
    norm = rng.random((len(names), 3))
    kinds, blocks, cells = merging.grid(names, norm)
    assert kinds == ["patch_embed.proj", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "proj"]
    assert blocks == ["-", *(f"blocks.{place}" for place in range(12))]
    for row, kind in enumerate(kinds):
        for column, block in enumerate(blocks):
            layer = kind if block == "-" else f"{block}.{kind}"
            own = [norm[names.index(f"{layer}.{end}")] for end in ("weight", "bias")] if f"{layer}.weight" in names else [[math.nan] * 3]
            np.testing.assert_allclose(cells[row, column], np.sqrt(np.square(own).sum(0)))
    assert np.isnan(merging.grid(["a.weight", "a.bias"], [math.nan, 1.0])[2]).all()  # an unknown norm is not zero


def test_the_residuals_share_is_drawn_below_the_cores_norm(drawn: list[Figure], tmp_path: Path) -> None:
    names = ["blocks.0.attn.qkv.weight", "blocks.0.mlp.fc1.weight", "blocks.1.attn.qkv.weight"]
    merging.norms(names, [3.0, 0.0, 4.0], [[1.0, 1.0], [0.0, 0.0], [2.0, 6.0]], tmp_path / "x.png")
    above, below, *_ = drawn[0].axes
    np.testing.assert_allclose(above.images[0].get_array().filled(np.nan), [[3, 4], [0, np.nan]])
    np.testing.assert_allclose(below.images[0].get_array().filled(np.nan), [[0.25, 0.5], [np.nan, np.nan]])
    whole = (5**0.5 + 37**0.5) / 2
    assert f"{whole / (5 + whole):.0%} over all layers" in below.get_title(loc="left")
    assert [label.get_text() for label in below.get_yticklabels()] == ["attn.qkv", "mlp.fc1"]
    assert [label.get_text() for label in below.get_xticklabels()] == ["0", "1"]


def test_cosines_equal_those_of_the_vectors(drawn: list[Figure], tmp_path: Path) -> None:
    vectors = tasks(4)
    vectors[2] = 0
    found = merging.cosine(vectors @ vectors.T)
    for row, one in enumerate(vectors):
        for column, other in enumerate(vectors):
            expected = math.nan if 2 in (row, column) else one @ other / math.sqrt((one @ one) * (other @ other))
            assert found[row, column] == pytest.approx(expected, nan_ok=True)
    merging.cosines("abcd", vectors @ vectors.T, tmp_path / "x.png")
    axes = drawn[0].axes[0]
    assert [text.get_text() for text in axes.texts] == ["-" if np.isnan(value) else f"{value:.2f}" for value in found.flat]
    others = [found[row, column] for row in (0, 1, 3) for column in (0, 1, 3) if row != column]
    assert f"{np.mean(others):.2f} on average" in axes.get_title(loc="left")


def test_the_spectrum_is_that_of_the_stacked_tasks(drawn: list[Figure], tmp_path: Path) -> None:
    vectors = tasks(4)
    expected = np.linalg.svd(vectors, compute_uv=False)
    np.testing.assert_allclose(merging.singular_values(vectors @ vectors.T), expected)
    same = np.ones((3, 5))
    np.testing.assert_allclose(merging.singular_values(same @ same.T), [15**0.5, 0, 0], atol=1e-6)  # rounding makes eigenvalues negative
    merging.spectrum(vectors @ vectors.T, 2, tmp_path / "x.png")
    axes = drawn[0].axes[0]
    bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    np.testing.assert_allclose([bar.get_height() for bar in bars], expected)
    assert [to_hex(bar.get_facecolor()).upper() for bar in bars] == [merging.CORE] * 2 + [merging.REST] * 2
    energy = expected**2 / (vectors**2).sum()
    assert [text.get_text() for text in axes.texts] == [f"{part:.0%}" for part in energy]
    assert f"2 directions hold {energy[:2].sum():.0%}" in axes.get_title(loc="left")


def test_the_matrix_tells_every_value_and_frames_the_inverted_ones(drawn: list[Figure], tmp_path: Path) -> None:
    merging.domain_matrix(["one", "two"], ["a/x", "a/y", "b/z"], [[0.9, 0.5, 0.4996], [0.1, np.nan, 1.0]], tmp_path / "x.png")
    axes = drawn[0].axes[0]
    assert [text.get_text() for text in axes.texts] == ["0.900", "0.500", "0.500", "0.100", "-", "1.000"]
    frames = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert {(round(frame.get_x() + 0.46), round(frame.get_y() + 0.44)) for frame in frames} == {(2, 0), (0, 1)}
    assert (axes.images[0].norm.vmin, axes.images[0].norm.vmax) == (0, 1)
    assert "2 inverted" in axes.get_title(loc="left")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one", "two"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a/x", "a/y", "b/z"]
