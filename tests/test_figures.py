"""Pictures: what they show is taken from the figure's own contents."""

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle, StepPatch
from matplotlib.text import Text
from PIL import Image
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

from fmsd.figures import curves, explanations, masks, merges, style
from fmsd.figures.robustness import plot_robustness
from fmsd.figures.simplify import MAX_POINTS, simplify_line
from fmsd.metrics.calibration import reliability
from fmsd.peft.mask import LayerMask, MaskHistory, Masking, ScoredLayer, choose_layers


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        image.load()
        return image.size


@pytest.mark.parametrize(
    "layers",
    [
        ["blocks.0.attn.qkv"],
        [
            f"layers.{i}.blocks.{j}.{kind}"
            for i in range(4)
            for j in range(6)
            for kind in ("attn.qkv", "mlp.fc1")
        ],
    ],
)
def test_a_mask_of_any_size_is_drawn(layers: list[str], tmp_path: Path) -> None:
    style.write_png(
        masks.plot_layer_mask(choose_layers(Masking(bias="random"), layers)), tmp_path / "mask.png"
    )
    width, height = size(tmp_path / "mask.png")
    assert width > 300
    assert height > 200
    assert [path.name for path in tmp_path.iterdir()] == ["mask.png"]


def test_the_heat_map_has_a_cell_per_layer_and_a_dot_per_layer_that_learns() -> None:
    mask = LayerMask(
        {"bias": "signal"},
        (
            ScoredLayer("blocks.0.attn.qkv", 0.2, False),
            ScoredLayer("blocks.0.attn.proj", 0.9, True),
            ScoredLayer("blocks.1.attn.qkv", 0.5, True),
        ),
    )
    axes = masks.plot_layer_mask(mask).axes[0]
    np.testing.assert_array_equal(
        axes.images[0].get_array().filled(np.nan), [[0.2, 0.5], [0.9, np.nan]]
    )
    assert {tuple(place) for place in axes.collections[0].get_offsets()} == {(0, 1), (1, 0)}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["attn.qkv", "attn.proj"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1"]


def test_the_history_shows_who_learned_when(tmp_path: Path) -> None:
    units = [f"blocks.{block}.attn.qkv.artifacts.{k}" for block in range(2) for k in range(2)]
    history = MaskHistory(
        units,
        [5, 10, 15],
        [[True, False, True, False]] * 2 + [[False, True, False, True]],
        [[0.1, 0.2, 0.3, 0.4]] * 3,
    )
    figure = masks.plot_mask_history(history)
    style.write_png(figure, tmp_path / "history.png")
    assert size(tmp_path / "history.png")[0] > 300
    assert json.loads(history.text())["active"][2] == [False, True, False, True]
    axes = figure.axes[0]
    shown = axes.images[0].get_array()
    np.testing.assert_array_equal(shown.mask, [[False, False, True], [True, True, False]] * 2)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["5", "10", "15"]


KINDS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
VIT = [f"blocks.{place}.{kind}.weight" for place in range(24) for kind in KINDS]
HIERA = [
    "patch_embed.proj.weight",
    *(
        f"blocks.{place}.{kind}.weight"
        for place in range(12)
        for kind in (*(("proj",) if place == 2 else ()), *KINDS)
    ),
]


def tasks(experts: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(experts, 40)) + rng.normal(size=40)


def zero_norms() -> Figure:
    return merges.plot_norms(VIT, np.zeros(96), np.zeros((96, 2)))


def nan_norms() -> Figure:
    return merges.plot_norms(VIT, np.full(96, np.nan), np.full((96, 2), np.nan))


PICTURES: dict[str, Callable[[], Figure]] = {
    "one layer": lambda: merges.plot_norms(["blocks.0.attn.qkv.weight"], [1.0], [[0.5, 0.2]]),
    "vit": lambda: merges.plot_norms(VIT, np.linspace(0, 1, 96), np.ones((96, 8))),
    "hiera": lambda: merges.plot_norms(HIERA, torch.ones(len(HIERA)), torch.ones(len(HIERA), 4)),
    "zero layers' norms": zero_norms,
    "unknown norms": nan_norms,
    "cosines": lambda: merges.plot_cosines(
        [f"runs/specialist_{place}" for place in range(8)], tasks(8) @ tasks(8).T
    ),
    "cosine of one": lambda: merges.plot_cosines(["one"], [[2.0]]),
    "cosines of zeros": lambda: merges.plot_cosines(["one", "two"], np.zeros((2, 2))),
    "spectrum": lambda: merges.plot_spectrum(torch.eye(4, dtype=torch.float64), 2),
    "cosines below a ceiling": lambda: merges.plot_cosines(
        ["one", "two"], tasks(2) @ tasks(2).T, 0.4
    ),
    "spectrum with doubts": lambda: merges.plot_spectrum(
        torch.eye(4, dtype=torch.float64), 2, ["a long sentence of doubt " * 8, HOSTILE[0]]
    ),
    "spectrum of one": lambda: merges.plot_spectrum([[2.0]], 1),
    "spectrum of zeros": lambda: merges.plot_spectrum(np.zeros((3, 3)), 1),
    "unknown spectrum": lambda: merges.plot_spectrum(np.full((3, 3), np.nan), 1),
    "domains": lambda: merges.plot_domain_matrix(
        ["merger=r2m " * 12] * 8,
        [f"ff++/forgery_{place}" for place in range(40)],
        np.full((8, 40), 0.7),
    ),
    "one domain": lambda: merges.plot_domain_matrix(["run"], ["a/b"], [[0.4]]),
    "no domain": lambda: merges.plot_domain_matrix(["run"], ["a/b"], [[np.nan]]),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("picture", PICTURES)
def test_a_picture_of_a_merge_is_a_whole_file_of_a_sane_size(picture: str, tmp_path: Path) -> None:
    style.write_png(PICTURES[picture](), tmp_path / "new" / "merge.png")
    with Image.open(tmp_path / "new" / "merge.png") as image:
        assert image.format == "PNG"
    width, height = size(tmp_path / "new" / "merge.png")
    assert 300 < width < 4500
    assert 150 < height < 2500
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["merge.png"]


def test_a_picture_that_cannot_be_drawn_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("full")

    monkeypatch.setattr(Figure, "savefig", fail)
    for picture in ("vit", "cosines", "spectrum", "domains"):
        with pytest.raises(OSError, match="full"):
            style.write_png(PICTURES[picture](), tmp_path / "merge.png")
    assert list(tmp_path.iterdir()) == []


def test_the_grid_of_norms_equals_a_naive_one() -> None:
    rng = np.random.default_rng(0)
    names = HIERA + [name.replace("weight", "bias") for name in HIERA]
    norm = rng.random((len(names), 3))
    kinds, blocks, cells = merges.layer_grid(names, norm)
    assert kinds == ["patch_embed.proj", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "proj"]
    assert blocks == ["-", *(f"blocks.{place}" for place in range(12))]
    for row, kind in enumerate(kinds):
        for column, block in enumerate(blocks):
            layer = kind if block == "-" else f"{block}.{kind}"
            own = (
                [norm[names.index(f"{layer}.{end}")] for end in ("weight", "bias")]
                if f"{layer}.weight" in names
                else [[math.nan] * 3]
            )
            np.testing.assert_allclose(cells[row, column], np.sqrt(np.square(own).sum(0)))
    assert np.isnan(
        merges.layer_grid(["a.weight", "a.bias"], [math.nan, 1.0])[2]
    ).all()  # an unknown norm is not zero


def test_the_residuals_share_is_drawn_below_the_cores_norm() -> None:
    names = ["blocks.0.attn.qkv.weight", "blocks.0.mlp.fc1.weight", "blocks.1.attn.qkv.weight"]
    above, below, *_ = merges.plot_norms(
        names, [3.0, 0.0, 4.0], [[1.0, 1.0], [0.0, 0.0], [2.0, 6.0]]
    ).axes
    np.testing.assert_allclose(above.images[0].get_array().filled(np.nan), [[3, 4], [0, np.nan]])
    np.testing.assert_allclose(
        below.images[0].get_array().filled(np.nan), [[0.25, 0.5], [np.nan, np.nan]]
    )
    whole = (5**0.5 + 37**0.5) / 2
    assert f"{whole / (5 + whole):.0%} over all layers" in below.get_title(loc="left")
    assert [label.get_text() for label in below.get_yticklabels()] == ["attn.qkv", "mlp.fc1"]
    assert [label.get_text() for label in below.get_xticklabels()] == ["0", "1"]


def test_cosines_equal_those_of_the_vectors() -> None:
    vectors = tasks(4)
    vectors[2] = 0
    found = merges.cosine_matrix(vectors @ vectors.T)
    for row, one in enumerate(vectors):
        for column, other in enumerate(vectors):
            expected = (
                math.nan
                if 2 in (row, column)
                else one @ other / math.sqrt((one @ one) * (other @ other))
            )
            assert found[row, column] == pytest.approx(expected, nan_ok=True)
    axes = merges.plot_cosines("abcd", vectors @ vectors.T).axes[0]
    assert [text.get_text() for text in axes.texts] == [
        "-" if np.isnan(value) else f"{value:.2f}" for value in found.flat
    ]
    others = [found[row, column] for row in (0, 1, 3) for column in (0, 1, 3) if row != column]
    assert f"{np.mean(others):.2f} on average" in axes.get_title(loc="left")


def test_the_cosine_between_two_seeds_stands_beside_those_of_the_specialists() -> None:
    vectors = tasks(3)
    axes, bar = merges.plot_cosines("abc", vectors @ vectors.T, ceiling=0.62).axes
    assert axes.get_title(loc="left").endswith("two seeds of one specialist: 0.62")
    assert [line.get_ydata()[0] for line in bar.lines] == [0.62]
    axes, bar = merges.plot_cosines("abc", vectors @ vectors.T).axes
    assert "two seeds" not in axes.get_title(loc="left")
    assert not bar.lines


def test_doubts_about_the_core_stand_above_its_spectrum() -> None:
    doubts = [
        "specialist_$1$ alone makes 94% of the core: its task vector is longer than the others",
        "The core is not determined",
    ]
    figure = merges.plot_spectrum(torch.eye(3, dtype=torch.float64), 1, doubts)
    title = figure.axes[0].get_title(loc="left")
    figure.draw_without_rendering()
    assert figure.axes[0].get_tightbbox().x1 <= figure.bbox.x1
    assert " ".join(title.replace("\\", "").split()).endswith(" ".join(doubts))
    assert len(title.split("\n")) >= 3


def test_the_spectrum_is_that_of_the_stacked_tasks() -> None:
    vectors = tasks(4)
    expected = np.linalg.svd(vectors, compute_uv=False)
    np.testing.assert_allclose(merges.gram_singular_values(vectors @ vectors.T), expected)
    same = np.ones((3, 5))
    np.testing.assert_allclose(
        merges.gram_singular_values(same @ same.T), [15**0.5, 0, 0], atol=1e-6
    )  # rounding makes eigenvalues negative
    axes = merges.plot_spectrum(vectors @ vectors.T, 2).axes[0]
    bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    np.testing.assert_allclose([bar.get_height() for bar in bars], expected)
    assert [to_hex(bar.get_facecolor()).upper() for bar in bars] == [merges.CORE] * 2 + [
        merges.REST
    ] * 2
    energy = expected**2 / (vectors**2).sum()
    assert [text.get_text() for text in axes.texts] == [f"{part:.0%}" for part in energy]
    assert f"2 directions hold {energy[:2].sum():.0%}" in axes.get_title(loc="left")


def test_the_matrix_tells_every_value_and_frames_the_inverted_ones() -> None:
    cells = [[0.9, 0.5, 0.4996], [0.1, np.nan, 1.0]]
    axes = merges.plot_domain_matrix(
        ["one", "two"], ["a/x", "a/y", "b/z"], cells, inverted=[(0, 2), (1, 0)]
    ).axes[0]
    assert [text.get_text() for text in axes.texts] == [
        "0.900",
        "0.500",
        "0.500",
        "0.100",
        "-",
        "1.000",
    ]
    frames = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert {(round(frame.get_x() + 0.46), round(frame.get_y() + 0.44)) for frame in frames} == {
        (2, 0),
        (0, 1),
    }
    assert (axes.images[0].norm.vmin, axes.images[0].norm.vmax) == (0, 1)
    assert "2 inverted" in axes.get_title(loc="left")
    bare = merges.plot_domain_matrix(["one", "two"], ["a/x", "a/y", "b/z"], cells).axes[0]
    assert not [
        patch for patch in bare.patches if isinstance(patch, Rectangle)
    ]  # a value below 0.5 is no inversion by itself
    assert "inverted" not in bare.get_title(loc="left")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one", "two"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a/x", "a/y", "b/z"]
    errors = merges.plot_domain_matrix(
        ["one", "two"], ["a/x", "a/y", "b/z"], cells, "Equal error rate"
    ).axes[0]
    assert [patch for patch in errors.patches if isinstance(patch, Rectangle)] == []
    assert errors.get_title(loc="left") == "Video Equal error rate of each forgery"


def scored(seed: int, count: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores with ties, and labels of both classes."""
    rng = np.random.default_rng(seed)
    label = np.arange(count) % 2
    return torch.from_numpy(
        np.round(np.clip(rng.normal(0.4 + 0.2 * label, 0.2), 0, 1), 2)
    ), torch.from_numpy(label)


def drawn(figure: Figure) -> list[np.ndarray]:
    """The points of a figure's lines but the first, which is the diagonal."""
    return [np.asarray(line.get_xydata()) for line in figure.axes[0].lines[1:]]


def gaps(some: np.ndarray, points: np.ndarray) -> np.ndarray:
    """How far each of some points is from the nearest of others."""
    return np.linalg.norm(some[:, None] - points[None], axis=2).min(1)


def test_roc_and_det_equal_scikit_learns_and_lines_keep_their_places() -> None:
    first, last = scored(0), scored(1)
    roc, det = curves.plot_roc([first, None, last]), curves.plot_det([first, None, last])
    for (score, label), line, bent in zip((first, last), drawn(roc), drawn(det), strict=True):
        false_positive, true_positive, _ = roc_curve(label, score, drop_intermediate=False)
        points = np.stack([false_positive, true_positive], 1)
        assert gaps(line, points).max() < 1e-6
        assert np.trapezoid(line[:, 1], line[:, 0]) == pytest.approx(
            roc_auc_score(label, score), abs=2e-3
        )
        inner = points[(points > 0).all(1) & (points < 1).all(1)]
        ends = norm.ppf([curves.TICKS[0], curves.TICKS[-1]]) + np.array([-1, 1])
        shown = bent[((bent > ends[0]) & (bent < ends[1])).all(1)]
        assert len(shown) > 5
        assert gaps(shown, norm.ppf(np.stack([inner[:, 0], 1 - inner[:, 1]], 1))).max() < 1e-4
    for figure in (roc, det):
        looks = [(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines[1:]]
        assert [look[0] for look in looks] == [style.LINES[0], style.LINES[2]]


@pytest.mark.parametrize(("count", "seed"), [(3, 0), (40, 1), (300, 2), (301, 3), (5000, 4)])
def test_a_thinned_line_is_close_to_its_points_and_ends_where_they_do(
    count: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x, y = np.sort(rng.random(count)), np.sort(rng.random(count))
    few_x, few_y = simplify_line(x, y)
    assert len(few_x) <= min(count, MAX_POINTS)
    assert {*few_x} <= {*x}
    assert (few_x[0], few_x[-1], few_y[0], few_y[-1]) == (x[0], x[-1], y[0], y[-1])
    assert np.abs(np.interp(x, few_x, few_y) - y).max() < 0.1
    assert len(simplify_line(np.arange(500.0), np.arange(500.0))[0]) == 2


def test_twelve_lines_differ() -> None:
    looks = [(look["color"], str(look["linestyle"])) for look in map(style.line_style, range(12))]
    assert len(set(looks)) == 12
    assert all(
        one[0] != other[0] and one[1] != other[1] for one, other in itertools.pairwise(looks)
    )


def test_histograms_show_the_share_of_frames_and_the_reals_as_an_area() -> None:
    rng = np.random.default_rng(0)
    domains = {"swap": rng.random(200), "real": rng.random(50)}
    real, swap = curves.plot_histograms(domains).axes[0].patches
    assert (real.get_label(), swap.get_label()) == ("real", "swap")
    assert isinstance(real, StepPatch)
    assert isinstance(swap, StepPatch)
    assert real.get_fill()
    assert not swap.get_fill()
    for name, patch in (("real", real), ("swap", swap)):
        values, edges, _ = patch.get_data()
        np.testing.assert_allclose(
            values,
            [
                ((domains[name] >= low) & (domains[name] < high)).mean()
                for low, high in itertools.pairwise(edges)
            ],
        )

    crowd = curves.plot_histograms(
        {
            "real": rng.random(9),
            **{f"forgery {place}": rng.random(9) for place in range(curves.MAX_HISTOGRAMS + 1)},
        }
    )
    assert [patch.get_label() for patch in crowd.axes[0].patches] == ["real", "13 forgeries"]


def test_reliability_leaves_out_empty_bins_and_spectra_have_a_panel_a_layer() -> None:
    table = reliability(
        torch.tensor([0.1, 0.1, 0.9, 0.9, 0.9], dtype=torch.float64), torch.tensor([0, 1, 1, 1, 0])
    )
    (line,) = drawn(curves.plot_reliability([table]))
    np.testing.assert_allclose(line, [[0.1, 0.5], [0.9, 2 / 3]])
    layers = {
        f"blocks.{place}": {"before": [5.0, 2.0, 1.0], "after": [4.0, 2.0, 0.0]}
        for place in range(5)
    }
    panels = curves.plot_spectra(layers).axes
    assert [panel.get_title(loc="left") for panel in panels] == list(layers)
    before, after = panels[0].lines
    np.testing.assert_allclose(before.get_ydata(), [5, 2, 1])
    np.testing.assert_allclose(after.get_ydata(), [4, 2])  # zero has no place on a logarithmic axis


HOSTILE = ("_hidden", "$\\frac{$", "a$b$c", "[/]", "{x}", "%s")
"""Names that matplotlib would leave out of a legend, or take for formulas, some of them broken."""


def test_names_are_drawn_as_they_are() -> None:
    scores = {"real": np.array([0.1]), **{name: np.array([0.5]) for name in HOSTILE}}
    matrix = merges.plot_domain_matrix(HOSTILE, HOSTILE, np.full((len(HOSTILE), len(HOSTILE)), 0.5))
    rows = [
        (name, "video", "auc", 0.7, "jpeg", severity) for name in HOSTILE for severity in (0, 1)
    ]
    table = pl.DataFrame(
        rows, schema=["dataset", "level", "metric", "value", "corruption", "severity"], orient="row"
    )
    points = pl.DataFrame(
        [("d", name, 0.0, 1.0) for name in ("real", *HOSTILE)],
        schema=["dataset", "domain", "x", "y"],
        orient="row",
    )
    legends = (
        curves.plot_histograms(scores),
        plot_robustness(table),
        explanations.plot_features(points, "run[1] $x$ $y$"),
    )
    for figure in (*legends, matrix, merges.plot_cosines(HOSTILE, np.eye(len(HOSTILE)))):
        figure.canvas.draw()  # a broken formula raises here
    for figure in legends:
        shown = {
            text.get_text().strip().replace(r"\$", "$") for text in figure.legends[0].get_texts()
        }
        assert set(HOSTILE) <= shown
    assert [
        label.get_text().strip().replace(r"\$", "$") for label in matrix.axes[0].get_yticklabels()
    ] == list(HOSTILE)
    assert not any(
        text.get_text().count("$") - text.get_text().count(r"\$")
        for figure in legends
        for text in figure.findobj(Text)
    )
