"""Lets torchvision be imported beside a torch build that its compiled operators do not match.

timm and torchmetrics import torchvision. Its wheel on PyPI is built for the CUDA build of torch;
beside a CPU-only torch the compiled part does not load, and the import then fails at
`torchvision::nms`, an operator that nothing here calls. Where the compiled part does not load, the
two operators that torchvision's import refers to are declared without an implementation. Where it
loads, nothing is changed.
"""

import importlib.util
from pathlib import Path

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []  # a library's operators live as long as the object


def declare() -> None:
    """Declares torchvision's operators if its own library cannot be loaded. Call it before anything imports torchvision."""
    spec = importlib.util.find_spec("torchvision")
    if _declared or spec is None or spec.origin is None:
        return
    for library in Path(spec.origin).parent.glob("_C*.*"):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            continue
        return
    library = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        library.define(schema)
    _declared.append(library)
