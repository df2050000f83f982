import pytest
import torch

from fmsd.linalg import (
    SVD,
    DirectionSplit,
    energy_gain,
    median_singular_value,
    orthonormal_complement,
    singular_directions,
    truncate,
)


def gram_error(matrix: torch.Tensor) -> torch.Tensor:
    """||M^T M - I||_F^2: zero when the columns are orthonormal."""
    return (matrix.mT @ matrix - torch.eye(matrix.shape[1])).square().sum()


def conditioned(size: int, smallest: float) -> torch.Tensor:
    """A square matrix whose singular values fall geometrically from 1, as those of trained weights
    do.
    """
    left, right = (
        torch.linalg.qr(torch.randn(size, size, dtype=torch.float64)).Q for _ in range(2)
    )
    return (
        (left * torch.logspace(0, torch.tensor(smallest).log10().item(), size, dtype=torch.float64))
        @ right
    ).float()


@pytest.mark.parametrize(
    "shape", [(24, 24), (40, 16), (16, 40), (256, 256), (400, 230), (230, 400)]
)
@pytest.mark.parametrize("rank", [1, 4])
@pytest.mark.parametrize("split", ["tail", "top"])
def test_split_off_directions_are_the_singular_ones(
    shape: tuple[int, int], rank: int, split: DirectionSplit
) -> None:
    """From 193 singular values on the smallest come from inverse iteration, below from the whole
    decomposition.
    """
    weight = torch.randn(shape)
    found = singular_directions(weight, rank, split)
    values = torch.linalg.svdvals(weight.double())
    torch.testing.assert_close(
        found.s.double(), values[-rank:] if split == "tail" else values[:rank], rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(weight @ found.vt.mT, found.u * found.s, rtol=0, atol=1e-5)
    torch.testing.assert_close(weight.mT @ found.u, found.vt.mT * found.s, rtol=0, atol=1e-5)
    assert gram_error(found.u) < 1e-8
    assert gram_error(found.vt.mT.contiguous()) < 1e-8


@pytest.mark.parametrize("smallest", [0.9, 1e-3, 1e-6, 1e-9])
def test_the_smallest_directions_are_orthogonal_to_the_rest_however_small_or_flat_the_tail(
    smallest: float,
) -> None:
    weight = conditioned(300, smallest)
    u, _, vt = torch.linalg.svd(weight.double())
    found = singular_directions(weight, 4)
    assert (u[:, :-4].mT @ found.u.double()).norm() < 1e-6
    assert (vt[:-4] @ found.vt.double().mT).norm() < 1e-6


def test_a_singular_matrix_is_decomposed_too() -> None:
    weight = torch.randn(300, 300)
    weight[:, 7] = 0
    found = singular_directions(weight, 2)
    assert found.s[-1] < 1e-6
    torch.testing.assert_close(found.vt[-1].abs(), torch.eye(300)[7], rtol=0, atol=1e-5)


def test_random_directions_are_singular_ones_and_follow_the_seed() -> None:
    weight = torch.randn(30, 20)
    torch.manual_seed(1)
    first = singular_directions(weight, 3, "random")
    torch.manual_seed(1)
    assert torch.equal(singular_directions(weight, 3, "random").u, first.u)
    assert not torch.equal(singular_directions(weight, 3, "random").u, first.u)
    torch.testing.assert_close(weight @ first.vt.mT, first.u * first.s, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rank", [0, 16, 17])
def test_directions_need_a_rank_inside_the_matrix(rank: int) -> None:
    with pytest.raises(ValueError, match=r"rank must lie in \[1, 15\]"):
        singular_directions(torch.randn(16, 40), rank)


def test_complement_is_what_the_basis_does_not_hold() -> None:
    basis, _ = torch.linalg.qr(torch.randn(20, 5, dtype=torch.float64))
    inside, outside = (
        basis @ torch.randn(5, 5, dtype=torch.float64),
        torch.randn(20, 3, dtype=torch.float64),
    )
    torch.testing.assert_close(orthonormal_complement(basis, inside), torch.zeros_like(inside))
    rest = orthonormal_complement(basis, outside)
    torch.testing.assert_close(basis.mT @ rest, torch.zeros(5, 3, dtype=torch.float64))
    assert rest.norm() > 1


@pytest.mark.parametrize("shape", [(9, 9), (10, 10), (30, 7), (7, 30), (256, 200)])
def test_the_median_singular_value_is_that_of_a_whole_decomposition(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape)
    torch.testing.assert_close(
        median_singular_value(matrix), torch.linalg.svdvals(matrix.double()).median().float()
    )
    assert median_singular_value(torch.zeros(shape)) == 0
    # most of its singular values are rounding
    low = torch.randn(shape[0], 3) @ torch.randn(3, shape[1])
    torch.testing.assert_close(
        median_singular_value(low), torch.linalg.svdvals(low.double())[1].float()
    )


def test_the_gain_of_energy_is_the_difference_of_two_squared_norms() -> None:
    matrix, left, right = (
        torch.randn(2, *shape, dtype=torch.float64) for shape in ((12, 8), (12, 3), (3, 8))
    )
    expected = (matrix + left @ right).square().sum((1, 2)) - matrix.square().sum((1, 2))
    torch.testing.assert_close(energy_gain(matrix @ right.mT, left, right), expected)


LARGE = (700, 500)
"""The shape of a matrix whose best approximations of a small rank come from a Krylov space."""


def of_spectrum(values: torch.Tensor, rows: int = LARGE[0]) -> torch.Tensor:
    """A matrix with random singular directions and given singular values."""
    left, right = (
        torch.linalg.qr(torch.randn(size, len(values), dtype=torch.float64)).Q
        for size in (rows, len(values))
    )
    return ((left * values) @ right.mT).float()


def best(matrix: torch.Tensor, rank: int) -> torch.Tensor:
    u, s, vt = torch.linalg.svd(matrix.double(), full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vt[:rank]


def factors(
    matrix: torch.Tensor, rank: int, svd: SVD = "krylov"
) -> tuple[torch.Tensor, torch.Tensor]:
    """A truncated matrix, from a Krylov space whatever that holds."""
    left, right, _ = truncate(matrix, rank, svd, least_energy=0.0)
    return left, right


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


RANKS = torch.arange(1, LARGE[1] + 1, dtype=torch.float64)
SPECTRA = {
    "root": RANKS**-0.5,
    "inverse": RANKS**-1,
    "square": RANKS**-2,
    "slow": 0.95**RANKS,
    "fast": 0.8**RANKS,
}


@pytest.mark.parametrize(
    "shape", [(24, 24), (40, 16), (16, 40), (190, 192), (400, 190), (190, 400)]
)
@pytest.mark.parametrize("rank", [1, 5, 16])
def test_a_small_matrix_is_truncated_exactly(shape: tuple[int, int], rank: int) -> None:
    """To single precision: rounding mixes the directions of close singular values."""
    matrix = torch.randn(shape)
    left, right = factors(matrix, rank)
    assert (left.shape, right.shape) == ((shape[0], rank), (rank, shape[1]))
    assert relative(left @ right, best(matrix, rank)) < 1e-4


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (300, 230), LARGE, LARGE[::-1]])
def test_of_full_rank_nothing_is_lost(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape)
    left, right = factors(matrix, min(shape))
    assert (left.shape, right.shape) == ((shape[0], min(shape)), (min(shape), shape[1]))
    assert relative(left @ right, matrix) < 1e-5


@pytest.mark.parametrize("wide", [False, True], ids=["tall", "wide"])
@pytest.mark.parametrize(("true", "rank"), [(1, 1), (1, 40), (20, 40), (40, 40), (3, 4)])
def test_a_matrix_of_low_rank_comes_back(true: int, rank: int, wide: bool) -> None:
    matrix = torch.randn(LARGE[0], true) @ torch.randn(true, LARGE[1])
    matrix = matrix.mT.contiguous() if wide else matrix
    left, right = factors(matrix, rank)
    assert relative(left @ right, matrix) < 2e-5


@pytest.mark.parametrize("scale", [1e-12, 1e-4, 1e4])
def test_the_size_of_the_numbers_does_not_matter(scale: float) -> None:
    matrix = torch.randn(LARGE[0], 20) @ torch.randn(20, LARGE[1])
    left, right = factors(scale * matrix, 40)
    assert relative((left / scale) @ right, matrix) < 2e-5


def test_of_few_entries_or_none_the_rest_stays_zero() -> None:
    left, right = factors(torch.zeros(LARGE), 40)
    assert torch.equal(left @ right, torch.zeros(LARGE))
    assert gram_error(right.mT.contiguous()) < 1e-8
    matrix = torch.zeros(LARGE)
    matrix[3, 4], matrix[100:110, 200:210] = 2.0, torch.randn(10, 10)
    left, right = factors(matrix, 40)
    assert relative(left @ right, matrix) < 2e-5


@pytest.mark.parametrize("rank", [1, 10, 40, 100])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_a_falling_spectrum_is_approximated_nearly_as_well_as_can_be(
    spectrum: str, rank: int
) -> None:
    """To 1 %, but for singular values below the root of the precision, which are not told from each
    other.
    """
    values = SPECTRA[spectrum]
    matrix = of_spectrum(values)
    left, right = factors(matrix, rank)
    error = (matrix.double() - left.double() @ right.double()).norm()
    assert (
        values[rank:].norm() * (1 - 1e-4) - 1e-6
        <= error
        <= 1.01 * values[rank:].norm() + torch.finfo(torch.float32).eps ** 0.5 * values.norm()
    )


@pytest.mark.parametrize("rank", [1, 10, 40, 100])
@pytest.mark.parametrize(("kind", "share"), [("root", 0.99), ("noise", 0.85)])
def test_what_is_kept_is_nearly_all_that_can_be(kind: str, share: float, rank: int) -> None:
    matrix = of_spectrum(SPECTRA["root"]) if kind == "root" else torch.randn(LARGE)
    left, right = factors(matrix, rank)
    kept = (left @ right).double().square().sum() / torch.linalg.svdvals(matrix.double())[
        :rank
    ].square().sum()
    assert share <= kept < 1 + 1e-5


@pytest.mark.parametrize("shape", [(40, 16), LARGE])
def test_a_wide_matrix_is_truncated_as_its_transpose(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape)
    (left, right), (above, below) = factors(matrix, 8), factors(matrix.mT, 8)
    assert torch.equal(above, right.mT)
    assert torch.equal(below, left.mT)


@pytest.mark.parametrize("shape", [(24, 24), (40, 16), (16, 40), LARGE, LARGE[::-1], (300, 300)])
def test_the_factor_of_the_shorter_side_is_orthonormal(shape: tuple[int, int]) -> None:
    left, right = factors(torch.randn(shape), 10)
    assert gram_error(right.mT.contiguous() if shape[0] >= shape[1] else left) < 1e-8


@pytest.mark.parametrize("shape", [(40, 16), LARGE])
def test_the_same_matrix_gives_the_same_factors_and_leaves_the_random_state_alone(
    shape: tuple[int, int],
) -> None:
    matrix = torch.randn(shape)
    left, right = factors(matrix, 10)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again = factors(matrix, 10)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(again[0], left)
    assert torch.equal(again[1], right)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        other = factors(matrix, 10)
    finally:
        torch.set_num_threads(threads)
    assert relative(other[0] @ other[1], left @ right) < 1e-4


def test_a_matrix_is_left_as_it_was() -> None:
    for shape in (LARGE, LARGE[::-1], (40, 16)):
        matrix = torch.randn(shape)
        kept = matrix.clone()
        factors(matrix, 10)
        assert torch.equal(matrix, kept)


@pytest.mark.parametrize("shape", [(40, 16), (16, 40), LARGE, LARGE[::-1]])
@pytest.mark.parametrize("rank", [1, 16])
def test_exactly_truncated_it_is_the_best_approximation(shape: tuple[int, int], rank: int) -> None:
    matrix = torch.randn(shape)
    left, right, quality = truncate(matrix, rank)
    assert relative(left @ right, best(matrix, rank)) < 1e-4
    squares = torch.linalg.svdvals(matrix.double()).square()
    assert quality.energy == pytest.approx(float(squares[:rank].sum() / squares.sum()), rel=1e-5)
    assert (quality.of_best, quality.rejected) == (1.0, None)


@pytest.mark.parametrize("wide", [False, True], ids=["tall", "wide"])
@pytest.mark.parametrize("rank", [1, 10, 40, 100])
@pytest.mark.parametrize("spectrum", [*SPECTRA, "noise"])
def test_what_a_krylov_space_is_known_to_hold_is_never_more_than_it_holds(
    spectrum: str, rank: int, wide: bool
) -> None:
    matrix = torch.randn(LARGE) if spectrum == "noise" else of_spectrum(SPECTRA[spectrum])
    matrix = matrix.mT if wide else matrix
    left, right, quality = truncate(matrix, rank, "krylov", least_energy=0.0)
    held, whole = (left.double() @ right.double()).square().sum(), matrix.double().square().sum()
    assert quality.energy == pytest.approx(float(held / whole), rel=1e-5)
    of_best = float(held / torch.linalg.svdvals(matrix.double())[:rank].square().sum())
    assert quality.energy - 1e-6 <= quality.of_best <= of_best + 1e-5
    if spectrum in ("square", "fast"):
        assert quality.of_best > 0.99


def test_of_a_low_rank_a_krylov_space_is_known_to_hold_all() -> None:
    quality = truncate(
        torch.randn(LARGE[0], 20) @ torch.randn(20, LARGE[1]), 40, "krylov", 0.9999
    ).quality
    assert quality.energy == pytest.approx(1, abs=1e-5)
    assert quality.of_best == pytest.approx(1, abs=1e-5)
    assert quality.rejected is None


@pytest.mark.parametrize("shape", [LARGE, LARGE[::-1]])
def test_where_a_krylov_space_holds_too_little_the_whole_decomposition_is_computed(
    shape: tuple[int, int],
) -> None:
    noise = torch.randn(shape)
    bound = truncate(noise, 40, "krylov", least_energy=0.0).quality.of_best
    kept, changed = (
        truncate(noise, 40, "krylov", least_energy=bound + step) for step in (-0.01, 0.01)
    )
    assert kept.quality.of_best == bound
    assert changed.quality.rejected == bound
    exact = truncate(noise, 40)
    assert torch.equal(changed.left, exact.left)
    assert torch.equal(changed.right, exact.right)
    assert changed.quality._replace(rejected=None) == exact.quality


@pytest.mark.parametrize("svd", ["exact", "krylov"])
@pytest.mark.parametrize("shape", [(24, 24), LARGE])
def test_a_zero_matrix_loses_nothing(shape: tuple[int, int], svd: SVD) -> None:
    assert truncate(torch.zeros(shape), 10, svd).quality == (1.0, 1.0, None)
