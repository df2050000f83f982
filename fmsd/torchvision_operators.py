"""Makes torchvision importable beside a torch build that its compiled operators do not match.

timm and torchmetrics import torchvision. Its wheel on PyPI is built for the CUDA build of torch;
beside a CPU-only torch its compiled library does not load, and the import then fails at
`torchvision::nms`, an operator that this package never calls. If the library does not load, the two
operators that torchvision's import refers to are declared without an implementation. If it loads,
nothing is changed.
"""

import sys

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[object] = []  # operators live as long as their torch.library.Library


class _BeforeTorchvision:
    """Declares the operators when torchvision is first imported, and finds no module itself."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname == "torchvision" and self in sys.meta_path:
            sys.meta_path.remove(self)
            declare_operators()


def declare_before_import() -> None:
    """Has `declare_operators` called when torchvision is first imported, by whichever library.

    An import hook, since `import fmsd` must not load torch: `fmsd --help` needs none of it.
    """
    if "torchvision" not in sys.modules:
        sys.meta_path.insert(0, _BeforeTorchvision())


def declare_operators() -> None:
    """Declares torchvision's operators if its compiled library cannot be loaded."""
    # loaded by whoever imports torchvision; `import fmsd` is to be fast
    import importlib.util  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    import torch  # noqa: PLC0415

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
