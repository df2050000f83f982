"""Correctness on this device, before anything is timed: rounding, restoring and resuming.

python benchmarks/exactness.py [--tiny] [--json PATH]

Two blocks of the backbone of `step.py` with fmsd, whose factors are moved away from their start.

rounding    Logits and gradients of the factors in float32 and, on a GPU, under bfloat16 autocast,
            as the length of their error over that of the same model in float64.
restoring   Elements of the parameters that a step of RoGA, which perturbs them, leaves changed.
resuming    Elements that differ between a training of two epochs and one that was stopped after the
            first and resumed, with torch's deterministic algorithms, by Lightning and the learner.
"""

import copy
import functools
import logging
import os
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from harness import Row, arguments, report, row
from lightning.pytorch import Trainer
from step import DEVICE, GPU, REAL, TINY, Size, ours
from torch import Tensor
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR

from fmsd.engine.learner import Learner
from fmsd.models.detector import Detector
from fmsd.optim.groups import trainable_parameters
from fmsd.optim.replay import Repeatable
from fmsd.optim.roga import RoGA
from fmsd.types import Frames

PRECISION = "bf16-mixed" if GPU else "32-true"
DOMAINS = ("first", "second")


def two_blocks(size: Size) -> Size:
    """A size with two blocks, as wide as it is."""
    return size._replace(depth=2, arguments={**size.arguments, "depth": 2})


def moved(size: Size) -> Detector:
    """The detector with fmsd, its trainable parameters away from their start."""
    model = size.model()
    ours(model)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trainable_parameters(model):
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


def outcome(model: Detector, image: Tensor, mixed: bool) -> tuple[Tensor, Tensor]:
    """The logits of images, and the gradient of their loss, in float64."""
    label = (torch.arange(len(image), device=DEVICE) % 2).double()
    model.zero_grad()
    with torch.autocast(DEVICE.type, torch.bfloat16, enabled=mixed):
        logit = model(image)
    functional.binary_cross_entropy_with_logits(logit.double(), label).backward()
    gradients = [parameter.grad for parameter in trainable_parameters(model)]
    parts = [gradient.flatten().double() for gradient in gradients if gradient is not None]
    return logit.detach().double(), torch.cat(parts)


def rounding(size: Size) -> list[Row]:
    """The errors of logits and gradients beside float64."""
    model, image = moved(size), size.images()
    exact = outcome(copy.deepcopy(model).double(), image, mixed=False)
    rows = []
    for kind, mixed, goal in (("float32", False, 1e-4), ("bfloat16", True, 5e-2)):
        if mixed and not GPU:
            continue
        for what, own, other in zip(
            ("logits", "gradients"), outcome(model, image, mixed), exact, strict=True
        ):
            error = torch.linalg.vector_norm(own - other) / torch.linalg.vector_norm(other)
            rows.append(row(f"error of {what}, {kind}", float(error), "x", goal, "float64"))
    return rows


def changed(before: Iterable[Tensor], after: Iterable[Tensor]) -> int:
    """Number of elements whose bits differ."""
    return sum(int((own != other).sum()) for own, other in zip(before, after, strict=True))


def restoring(size: Size) -> list[Row]:
    """What a wrapper that perturbs leaves changed."""
    model, image = moved(size), size.images()
    params = trainable_parameters(model)
    before = [parameter.detach().clone() for parameter in params]

    def run(part: Tensor) -> Tensor:
        loss = model(part).float().square().mean()
        loss.backward()
        return loss.detach()

    passes = [Repeatable(functools.partial(run, part), model) for part in image.chunk(len(DOMAINS))]
    RoGA(rho=0.5)(params, passes, head=trainable_parameters(model.head()))
    return [row("elements changed by a step of RoGA", changed(before, params), "elements", 0.0)]


def batches(size: Size) -> list[Frames]:
    """Two batches of both domains on the CPU, as a loader gives them."""
    count = size.batch
    place = torch.arange(count)
    return [
        Frames(image.cpu(), place % 2, place // 2 % 2, place + start, place)
        for start, image in ((0, size.images()), (count, size.images()))
    ]


def learner(size: Size) -> Learner:
    """A learner of fmsd under RoGA, as `fmsd train` builds it."""
    model = size.model()
    return Learner(
        model,
        RoGA(warmup_epochs=0),
        functools.partial(torch.optim.AdamW, lr=1e-3),
        lambda optimizer, steps: LambdaLR(optimizer, lambda step: 1 - step / (2 * steps)),
        ours(model),
        steps=4,
        domains=DOMAINS,
    )


def trainer(epochs: int) -> Trainer:
    """Lightning, without anything that is written or printed."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    return Trainer(
        accelerator="gpu" if DEVICE.type == "cuda" else "cpu",
        devices=1,
        precision=PRECISION,
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def resuming(size: Size) -> list[Row]:
    """What a resumed training differs in from one that went through."""
    data = batches(size)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            through = learner(size)
            trainer(2).fit(through, data)
            half, place = trainer(1), Path(folder) / "half.ckpt"
            half.fit(learner(size), data)
            half.save_checkpoint(place)
            resumed = learner(size)
            trainer(2).fit(resumed, data, ckpt_path=place, weights_only=True)
    finally:
        torch.use_deterministic_algorithms(False)
    different = changed(
        trainable_parameters(through.detector), trainable_parameters(resumed.detector)
    )
    return [row("elements that differ after resuming", different, "elements", 0.0)]


def measure(size: Size) -> list[Row]:
    """All rows."""
    small = two_blocks(size)
    return [*rounding(small), *restoring(small), *resuming(small)]


def failures(rows: Sequence[Row]) -> list[str]:
    """The rows that exceed their goal, in words."""
    return [
        f"{line['name']}: {line['value']:g} instead of at most {line['goal']:g}"
        for line in rows
        if line["goal"] is not None and not line["value"] <= line["goal"]
    ]


if __name__ == "__main__":
    parser = arguments("Correctness on this device")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to try the script out")
    options = parser.parse_args()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic CUDA needs
    chosen = TINY if options.tiny else REAL
    report(f"Correctness: {two_blocks(chosen)}", measure(chosen), options.json)
