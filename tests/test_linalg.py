import pytest
import torch

from fmsd.linalg import Split, directions, gram_error, orthonormal, orthonormal_complement


def conditioned(size: int, smallest: float) -> torch.Tensor:
    """A square matrix whose singular values fall geometrically from 1, as those of trained weights do."""
    left, right = (torch.linalg.qr(torch.randn(size, size, dtype=torch.float64)).Q for _ in range(2))
    return ((left * torch.logspace(0, torch.tensor(smallest).log10().item(), size, dtype=torch.float64)) @ right).float()


@pytest.mark.parametrize("shape", [(24, 24), (40, 16), (16, 40), (256, 256), (400, 230), (230, 400)])
@pytest.mark.parametrize("rank", [1, 4])
@pytest.mark.parametrize("split", ["tail", "top"])
def test_split_off_directions_are_the_singular_ones(shape: tuple[int, int], rank: int, split: Split) -> None:
    """From 193 singular values on the smallest come from inverse iteration, below from the whole decomposition."""
    weight = torch.randn(shape)
    found = directions(weight, rank, split)
    values = torch.linalg.svdvals(weight.double())
    torch.testing.assert_close(found.s.double(), values[-rank:] if split == "tail" else values[:rank], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weight @ found.vt.mT, found.u * found.s, rtol=0, atol=1e-5)
    torch.testing.assert_close(weight.mT @ found.u, found.vt.mT * found.s, rtol=0, atol=1e-5)
    assert gram_error(found.u) < 1e-8
    assert gram_error(found.vt.mT.contiguous()) < 1e-8


@pytest.mark.parametrize("smallest", [0.9, 1e-3, 1e-6, 1e-9])
def test_the_smallest_directions_are_orthogonal_to_the_rest_however_small_or_flat_the_tail(smallest: float) -> None:
    weight = conditioned(300, smallest)
    u, _, vt = torch.linalg.svd(weight.double())
    found = directions(weight, 4)
    assert (u[:, :-4].mT @ found.u.double()).norm() < 1e-6
    assert (vt[:-4] @ found.vt.double().mT).norm() < 1e-6


def test_a_singular_matrix_is_decomposed_too() -> None:
    weight = torch.randn(300, 300)
    weight[:, 7] = 0
    found = directions(weight, 2)
    assert found.s[-1] < 1e-6
    torch.testing.assert_close(found.vt[-1].abs(), torch.eye(300)[7], rtol=0, atol=1e-5)


def test_random_directions_are_singular_ones_and_follow_the_seed() -> None:
    weight = torch.randn(30, 20)
    torch.manual_seed(1)
    first = directions(weight, 3, "random")
    torch.manual_seed(1)
    assert torch.equal(directions(weight, 3, "random").u, first.u)
    assert not torch.equal(directions(weight, 3, "random").u, first.u)
    torch.testing.assert_close(weight @ first.vt.mT, first.u * first.s, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rank", [0, 16, 17])
def test_directions_need_a_rank_inside_the_matrix(rank: int) -> None:
    with pytest.raises(ValueError, match=r"rank must lie in \[1, 15\]"):
        directions(torch.randn(16, 40), rank)


def test_complement_is_what_the_basis_does_not_hold() -> None:
    basis, _ = torch.linalg.qr(torch.randn(20, 5, dtype=torch.float64))
    inside, outside = basis @ torch.randn(5, 5, dtype=torch.float64), torch.randn(20, 3, dtype=torch.float64)
    torch.testing.assert_close(orthonormal_complement(basis, inside), torch.zeros_like(inside))
    rest = orthonormal_complement(basis, outside)
    torch.testing.assert_close(basis.mT @ rest, torch.zeros(5, 3, dtype=torch.float64))
    assert rest.norm() > 1


def test_orthonormal_gives_the_polar_factor() -> None:
    matrix = torch.randn(3, 20, 4, dtype=torch.float64)
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    torch.testing.assert_close(orthonormal(matrix), u @ vt)
