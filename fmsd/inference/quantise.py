"""An exported ONNX file with its matrices in 8 bits, by ONNX Runtime's own quantiser.

The quantisation is dynamic: weights are stored in 8 bits, a scale for each output channel, and the
scale of what a matrix is multiplied with is found anew for each batch. Transformers have a few
channels whose values are far larger than the others (T. Dettmers, M. Lewis, Y. Belkada and
L. Zettlemoyer, LLM.int8(), 2022, arXiv:2208.07339), which a scale that was fixed on calibration
images would clip or coarsen, and 8 bits of calibration data would have to be chosen. Products of
attention, norms, convolutions, and what follows the logit stay in float32.
"""

import logging
from pathlib import Path
from typing import Any, NamedTuple

from fmsd.errors import InputError
from fmsd.inference.metadata import LOGIT

LEAST = 0.5
"""The least share of the weights in matrices; below it, 8 bits would save little."""

MATRICES = ("MatMul", "Gemm")
"""The operations that are quantised."""


class Sizes(NamedTuple):
    """The size of a file before and after, in bytes."""

    before: int
    after: int


def quantise(source: Path, out: Path) -> Sizes:
    """Writes an exported ONNX file in 8 bits.

    Weights use 7 of the 8 bits: processors without instructions for 8 bits (VNNI) add pairs of
    products in 16 bits, which would overflow, and scores would depend on the processor.

    Raises:
        InputError: too few of the weights lie in matrices.
    """
    import onnx  # noqa: PLC0415  of an extra
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415

    model = onnx.load(source)
    before = nodes_before(model.graph, LOGIT)
    share = share_of_matrices(model.graph, before)
    if share < LEAST:
        raise InputError(
            f"int8=true quantises the weights of matrices, and of this network's weights only "
            f"{share:.0%} lie there: the others are convolutions",
            "leave int8=true out",
        )
    after = [node.name for node in model.graph.node if node.name not in before]
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)  # it advises on steps that change nothing here
    try:
        quantize_dynamic(
            model,
            out,
            op_types_to_quantize=list(MATRICES),
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=after,
        )
    finally:
        logging.root.setLevel(level)
    return Sizes(source.stat().st_size, out.stat().st_size)


def nodes_before(graph: Any, output: str) -> set[str]:
    """The names of the operations that an output depends on."""
    makers = {name: node for node in graph.node for name in node.output}
    found, waiting = set[str](), [output]
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            waiting += node.input
    return found


def share_of_matrices(graph: Any, names: set[str]) -> float:
    """The share of the weights that some operations multiply with as matrices."""
    sizes = {weight.name: _count(weight.dims) for weight in graph.initializer}
    matrices = {
        name
        for node in graph.node
        if node.op_type in MATRICES and node.name in names
        for name in node.input
    }
    total = sum(sizes.values())
    return sum(size for name, size in sizes.items() if name in matrices) / max(total, 1)


def _count(dims: Any) -> int:
    count = 1
    for size in dims:
        count *= size
    return count
