"""Decomposing the attention matrices of CLIP ViT-L/14: time beside a full SVD, and exactness.

python benchmarks/decompose.py [--blocks N] [--json PATH]

24 blocks of q, k, v and proj are 96 matrices of 1024 x 1024, with random weights; a rank of 4. The
cache is a fresh folder: the first pass fills it, and its time is taken matrix by matrix beside
torch's decomposition in float32. Where FMSD_TEST_DATA is set, the trained attention matrices of its
weights/sam2_hiera_tiny.safetensors follow.

W_sem is formed as `fmsd.peft.subspace` forms it, in float32, and looked at in float64. The residual
is ||W_sem + U S V^T - W||_F / ||W||_F; the leak is the largest entry of W_sem v and W_sem^T u over
the largest singular value, where v and u are free directions: 0 if they were exact.
"""

import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from harness import Row, arguments, report, row
from safetensors.torch import load_file
from torch import Tensor

from fmsd.linalg import dense_product
from fmsd.peft.svd_cache import cached_directions

RANK = 4


def random(blocks: int) -> Iterator[Tensor]:
    """The matrices of CLIP ViT-L/14's shapes: of q, k, v and proj."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(blocks):
        fused = torch.randn(3 * 1024, 1024, generator=generator) * 0.02
        yield from (*fused.chunk(3), torch.randn(1024, 1024, generator=generator) * 0.02)


def trained(path: Path) -> Iterator[Tensor]:
    """The attention matrices of a timm model's weights."""
    for name, weight in load_file(path).items():
        if name.endswith(("attn.qkv.weight", "attn.proj.weight")):
            yield from weight.float().chunk(3 if "qkv" in name else 1)


def figures(
    what: str, matrices: Iterable[Tensor], again: Iterable[Tensor], goals: bool
) -> list[Row]:
    """Seconds of two passes, and how far the factors are from exact."""
    seconds = {"ours": 0.0, "whole": 0.0, "cached": 0.0}
    count, residual, leak = 0, 0.0, 0.0
    for matrix in matrices:
        start = time.perf_counter()
        factors = cached_directions(matrix, RANK)
        middle = time.perf_counter()
        largest = torch.linalg.svd(matrix, full_matrices=False).S[0]
        seconds["ours"] += middle - start
        seconds["whole"] += time.perf_counter() - middle
        count += 1
        semantic, (u, s, vt) = (
            (matrix - dense_product(factors)).double(),
            (factor.double() for factor in factors),
        )
        residual = max(residual, float((semantic + u * s @ vt - matrix).norm() / matrix.norm()))
        for image in (semantic @ vt.mT, semantic.mT @ u):
            leak = max(leak, float(image.abs().max() / largest))
    for matrix in again:
        start = time.perf_counter()
        cached_directions(matrix, RANK)
        seconds["cached"] += time.perf_counter() - start
    return [
        row(f"{what}: {count} matrices, no cache", seconds["ours"], "s"),
        row(f"{what}: whole decomposition, float32", seconds["whole"], "s"),
        row(
            f"{what}: no cache / whole",
            seconds["ours"] / seconds["whole"],
            "x",
            0.5 if goals else None,
            "torch.linalg.svd",
        ),
        row(
            f"{what}: {count} matrices, from the cache",
            seconds["cached"],
            "s",
            2.0 if goals else None,
        ),
        row(f"{what}: residual, largest", residual, "", 1e-6),
        row(f"{what}: leak, largest", leak, ""),
    ]


def measure(blocks: int) -> list[Row]:
    """Random weights, and trained ones where they are at hand."""
    rows = figures("ViT-L/14", random(blocks), random(blocks), goals=True)
    path = Path(os.environ.get("FMSD_TEST_DATA", "")) / "weights" / "sam2_hiera_tiny.safetensors"
    return (
        rows + figures("SAM 2 Hiera, trained", trained(path), trained(path), goals=False)
        if path.is_file()
        else rows
    )


if __name__ == "__main__":
    title = f"Decomposing attention matrices, rank {RANK}"
    parser = arguments(title)
    parser.add_argument(
        "--blocks", type=int, default=24, help="transformer blocks with random weights"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FMSD_CACHE"] = folder
        report(title, measure(options.blocks), options.json)
