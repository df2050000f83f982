"""The core of specialists from a Gram matrix: worked figures, the spectral gap, and what is warned
of.
"""

import pytest
import torch
from torch import Tensor

from fmsd.merge.core import leading_core, spectral_gap


def gram(lengths: tuple[float, ...], cosine: float) -> Tensor:
    """Inner products of vectors of given lengths, any two at the same cosine."""
    length = torch.tensor(lengths, dtype=torch.float64)
    return (
        (torch.full((len(length), len(length)), cosine, dtype=torch.float64).fill_diagonal_(1))
        * length
        * length[:, None]
    )


@pytest.mark.parametrize(
    ("cosine", "shares"),
    [(0.1, [0.936, 0.032, 0.032]), (0.5, [0.758, 0.121, 0.121])],
)
def test_length_decides_a_core_unless_the_task_vectors_are_normalised(
    cosine: float, shares: list[float]
) -> None:
    assert leading_core(gram((2, 1, 1), cosine), 1).shares == pytest.approx(shares, abs=5e-4)
    assert leading_core(gram((2, 1, 1), cosine), 1, "task").shares == pytest.approx([1 / 3] * 3)


def test_of_equal_lengths_normalising_changes_nothing() -> None:
    vectors = torch.nn.functional.normalize(torch.randn(4, 6, dtype=torch.float64), dim=1) * 3
    for directions in (1, 2, 4):
        plain = leading_core(vectors @ vectors.T, directions, "none")
        scaled = leading_core(vectors @ vectors.T, directions, "task")
        torch.testing.assert_close(scaled.weights, plain.weights)
        torch.testing.assert_close(scaled.shared @ scaled.mix, plain.shared @ plain.mix)


@pytest.mark.parametrize("directions", [1, 2, 3])
def test_the_projection_is_one_onto_the_leading_directions_of_the_unit_vectors(
    directions: int,
) -> None:
    vectors = (
        torch.randn(4, 7, dtype=torch.float64)
        * torch.tensor([5.0, 1.0, 0.3, 2.0], dtype=torch.float64)[:, None]
    )
    core = leading_core(vectors @ vectors.T, directions, "task")
    unit = torch.nn.functional.normalize(vectors, dim=1)
    v = torch.linalg.svd(unit).Vh[:directions]
    torch.testing.assert_close(core.shared @ core.mix @ vectors, vectors @ v.T @ v)
    torch.testing.assert_close(core.weights @ vectors, (vectors @ v.T @ v).mean(0))


@pytest.mark.parametrize("normalise", ["none", "task"])
@pytest.mark.parametrize("directions", [1, 2, 3])
def test_a_zero_vector_has_no_part_in_the_core(directions: int, normalise: str) -> None:
    products = gram((2, 1, 0), 0.4)
    core = leading_core(products, directions, normalise)  # pyright: ignore[reportArgumentType]
    assert all(part.isfinite().all() for part in (core.weights, core.shared, core.mix))
    assert core.shares is not None
    assert core.shares[2] == 0
    moved = leading_core(
        torch.diag(torch.tensor([0.0, 1.0, 4.0], dtype=torch.float64)), directions, normalise
    )  # pyright: ignore[reportArgumentType]
    assert "a is the base itself: leave it out" in moved.warnings("abc")
    assert not any("alone makes" in said for said in moved.warnings("abc"))
    nothing = leading_core(torch.zeros(3, 3, dtype=torch.float64), directions, normalise)  # pyright: ignore[reportArgumentType]
    assert nothing.weights.tolist() == [0, 0, 0]
    assert (nothing.shares, nothing.gap, len(nothing.warnings("abc"))) == (None, None, 3)


def test_the_spectral_gap() -> None:
    values = torch.tensor([4.0, 3.0, 1.0, 0.0], dtype=torch.float64)
    assert [spectral_gap(values, directions) for directions in (1, 2, 3, 4)] == pytest.approx(
        [0.25, 2 / 3, 1, 1]
    )
    # rounding is no gap
    assert spectral_gap(torch.tensor([1.0, 1e-17, -1e-17], dtype=torch.float64), 2) == 1
    assert spectral_gap(torch.zeros(3, dtype=torch.float64), 1) is None


@pytest.mark.parametrize(
    ("lengths", "cosine", "normalise", "parts"),
    [
        ((2, 1, 1), 0.1, "none", ["a alone makes 94% of the core"]),
        ((2, 1, 1), 0.5, "none", ["a alone makes 76% of the core"]),
        ((2, 1, 1), 0.5, "task", []),
        (
            (2, 1, 1),
            0.1,
            "task",
            [
                (
                    "The core is not determined: the spectral gap behind its direction is 0.25, "
                    "below "
                    "0.3"
                )
            ],
        ),
        ((1, 1, 1.2), 0.1, "none", ["c alone makes", "merger.normalise=task"]),
        ((1, 1, 1), 0.5, "none", []),
        ((1, 1, 1), 0.0, "task", ["The core is not determined"]),
    ],
)
def test_a_core_of_one_specialist_and_one_that_is_not_determined_are_warned_of(
    lengths: tuple[float, ...], cosine: float, normalise: str, parts: list[str]
) -> None:
    found = " ".join(leading_core(gram(lengths, cosine), 1, normalise).warnings("abc"))  # pyright: ignore[reportArgumentType]
    assert all(part in found for part in parts)
    assert bool(found) == bool(parts)
    assert "merger.normalise" not in found or normalise == "none"
