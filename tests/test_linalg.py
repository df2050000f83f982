import pytest
import torch

from fmsd.linalg import gram_error, orthonormal_complement, product, split_spectrum


@pytest.mark.parametrize("shape", [(24, 24), (40, 16), (16, 40)])
@pytest.mark.parametrize("rank", [1, 4])
def test_head_and_tail_are_the_matrix(shape: tuple[int, int], rank: int) -> None:
    weight = torch.randn(shape)
    head, tail = split_spectrum(weight, rank)
    torch.testing.assert_close(head + product(tail), weight, rtol=0, atol=1e-6 * weight.norm().item())
    values = torch.linalg.svdvals(weight)
    torch.testing.assert_close(tail.s, values[-rank:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.linalg.svdvals(head)[: len(values) - rank], values[:-rank], rtol=1e-4, atol=1e-5)
    assert gram_error(tail.u) < 1e-8
    assert gram_error(tail.vt.mT.contiguous()) < 1e-8
    assert (head @ tail.vt.mT).norm() < 1e-4


@pytest.mark.parametrize("rank", [0, 16, 17])
def test_a_tail_needs_a_rank_inside_the_matrix(rank: int) -> None:
    with pytest.raises(ValueError, match=r"rank must lie in \[1, 15\]"):
        split_spectrum(torch.randn(16, 40), rank)


def test_complement_is_what_the_basis_does_not_hold() -> None:
    basis, _ = torch.linalg.qr(torch.randn(20, 5, dtype=torch.float64))
    inside, outside = basis @ torch.randn(5, 5, dtype=torch.float64), torch.randn(20, 5, dtype=torch.float64)
    torch.testing.assert_close(orthonormal_complement(basis, inside), torch.zeros_like(inside))
    rest = orthonormal_complement(basis, outside)
    torch.testing.assert_close(basis.mT @ rest, torch.zeros(5, 5, dtype=torch.float64))
    assert rest.norm() > 1
