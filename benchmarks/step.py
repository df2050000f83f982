"""The cost of a training step of each method, time and peak memory, measured side by side.

python benchmarks/step.py [--rounds N] [--json PATH]

ViT-B/16 with 8 images of 224 pixels in float32; on a GPU ViT-L/14 with 32 images in bfloat16
autocast, and with torch.compile too. Weights are random: they do not change the cost. A step is the
classification loss (and penalties), its gradients and AdamW's step.

SVF has no goal beside LoRA: the gradient of all singular values of a matrix costs as much as that
of the matrix. BiasConsist has none beside BitFit: it runs the network on two views.

"limit" is what a method that adapts the first block cannot go far below: every weight frozen, a
gradient for the image only, no optimizer. "peft OSF" trains half of the directions, its
default. "plain adapter" and the like are the same methods as a user writes them by hand, see
plain_methods.py.

Memory is what two steps need at their peak beyond a process that has only imported: weights,
gradients, AdamW's state and activations. Each method runs in a process of its own. On the CPU it is
the high-water mark of the resident memory, reset once the model is built so that decomposing does
not count (Linux only); on CUDA it is `torch.cuda.max_memory_allocated`.
"""

import ctypes
import functools
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from harness import Row, arguments, interleaved, ratio, report, row
from plain_methods import plain_adapter, plain_moe_lora, plain_vpt
from torch import Tensor, nn
from torch.nn import functional

from fmsd.linalg import Factors, dense_product
from fmsd.losses.detection import DetectionLoss
from fmsd.losses.loss import Outputs
from fmsd.models.detector import Detector, detector
from fmsd.models.features import FeatureCapture
from fmsd.optim.groups import decay_groups
from fmsd.peft.adaptformer import adaptformer
from fmsd.peft.bitfit import bitfit
from fmsd.peft.fmsd import fmsd
from fmsd.peft.full import full
from fmsd.peft.inject import Matrix, inject, select_layers, stack_size
from fmsd.peft.lora import lora
from fmsd.peft.lora_xs import lora_xs
from fmsd.peft.masm import masm
from fmsd.peft.method import Adaptation
from fmsd.peft.moe_lora import moe_lora
from fmsd.peft.norm import norm
from fmsd.peft.penalties import WEIGHTS
from fmsd.peft.probe import probe
from fmsd.peft.svd_cache import cached_directions
from fmsd.peft.svf import svf
from fmsd.peft.vpt import vpt

import peft  # isort: skip  # after fmsd, which registers torchvision's operators

DEVICE = (
    torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
) or torch.device("cpu")
GPU = DEVICE.type != "cpu"
KIND = "bfloat16" if GPU else "float32"
WHERE = torch.cuda.get_device_name() if DEVICE.type == "cuda" else DEVICE.type


class Size(NamedTuple):
    """What is trained, on how many images.

    Args:
        arguments: of the backbone, besides.
    """

    backbone: str
    depth: int
    pixels: int
    batch: int
    arguments: Mapping[str, Any] = {}

    def __str__(self) -> str:
        """One line about it."""
        return (
            f"{self.backbone}, {self.pixels} px, {self.depth} blocks, batch {self.batch}, {KIND}, "
            f"{WHERE}"
        )

    def model(self) -> Detector:
        """The detector on the device, with random weights, which do not change the cost."""
        torch.manual_seed(0)
        with DEVICE:
            return detector(self.backbone, size=self.pixels, **self.arguments).to(DEVICE)

    def images(self) -> Tensor:
        """A batch of random images on the device."""
        shape = (self.batch, 3, self.pixels, self.pixels)
        return torch.randint(0, 256, shape, dtype=torch.uint8, device=DEVICE)


REAL = (
    Size("vit_large_patch14_clip_224", 24, 224, 32)
    if GPU
    else Size("vit_base_patch16_224", 12, 224, 8)
)
TINY = Size("vit_tiny_patch16_224", 2, 32, 16, {"depth": 2, "img_size": 32})
"""To try a script out."""

COMPILED = ", compiled"
"""What a method's name ends in where it runs through torch.compile."""

LIMIT, LORA, OSF = "limit", "peft LoRA", "peft OSF, 4 directions"
UNFOLDABLE = ("adapter", "vpt", "moe_lora")
"""Methods that put modules of their own into the backbone, each beside a plain one."""

MEASURED = (
    *("full", LIMIT, "fmsd", "fmsd with penalties", "our lora", LORA),
    *(name for own in UNFOLDABLE for name in (own, f"plain {own}")),
)
"""Whose memory is measured."""


class Rebuilt(nn.Module):
    """Effort as published: every forward pass rebuilds the dense weight W_main + U diag(S) V^T.

    A fused q, k, v is three matrices.
    """

    main: Tensor

    def __init__(self, layer: Matrix, parts: int) -> None:
        super().__init__()
        matrices = layer.weight.detach().unflatten(0, (parts, -1))
        found = Factors(
            *(
                torch.stack(factors)
                for factors in zip(
                    *(cached_directions(matrix, 1) for matrix in matrices), strict=True
                )
            )
        )
        self.u, self.s, self.vt = (nn.Parameter(factor) for factor in found)
        self.register_buffer("main", matrices - dense_product(found))
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """As `SVDResidualLinear` of the published code."""
        weight = self.main + self.u @ torch.diag_embed(self.s) @ self.vt
        return functional.linear(x, weight.flatten(0, 1), self.bias)


def rebuilt(model: Detector) -> Adaptation:
    """Effort by dense weights."""
    probe(model)
    inject(
        model.backbone,
        list(select_layers(model, ["attention"])),
        lambda name, layer: Rebuilt(layer, stack_size(name)),
    )
    return Adaptation()


def packaged(config: peft.PeftConfig, model: Detector) -> Adaptation:
    """A method of the peft package, and the head."""
    peft.inject_adapter_in_model(config, model.backbone)
    model.head().requires_grad_(True)
    return Adaptation()


def frozen(model: Detector) -> Adaptation:
    """Nothing learns."""
    model.requires_grad_(False)
    return Adaptation()


ours = functools.partial(fmsd, patterns=["attention"], subspaces=4, penalties=None)
upper = [f"blocks.{block}.attn.*" for block in range(REAL.depth // 2, REAL.depth)]
layers = r".*attn\.(qkv|proj)"
kept = (1024 if GPU else 768) - 4
RANKS = [8, 16, 32, 48, 64, 96, 128]

METHODS: dict[str, Callable[[Detector], Adaptation]] = {
    "full": full,
    "fmsd, top half of the blocks": functools.partial(ours, patterns=upper),
    LIMIT: frozen,
    "fmsd": ours,
    LORA: functools.partial(packaged, peft.LoraConfig(r=4, lora_alpha=8, target_modules=layers)),
    "our lora": functools.partial(lora, patterns=["attention"], rank=4, alpha=8.0),
    "our lora, pissa": functools.partial(
        lora, patterns=["attention"], rank=4, alpha=8.0, init="pissa"
    ),
    "lora_xs": functools.partial(lora_xs, patterns=["attention"]),
    "svf": functools.partial(svf, patterns=["attention"]),
    "fmsd with penalties": functools.partial(ours, penalties=WEIGHTS),
    "fmsd hard": functools.partial(ours, constraint="hard"),
    "masm": functools.partial(
        masm, patterns=["attention"], subspaces=4, every=50, momentum=0.9, fraction=0.5
    ),
    "effort, dense rebuild": rebuilt,
    OSF: functools.partial(packaged, peft.OSFConfig(effective_rank=kept, target_modules=layers)),
    "peft OSF": functools.partial(packaged, peft.OSFConfig(target_modules=layers)),
    "adapter": functools.partial(adaptformer, bottleneck=64, scale=0.1, dropout=0.1),
    "plain adapter": functools.partial(plain_adapter, bottleneck=64, scale=0.1, dropout=0.1),
    "norm": norm,
    "gend": norm,
    "bitfit": bitfit,
    "bias_consist": bitfit,
    "vpt": functools.partial(vpt, tokens=10),
    "plain vpt": functools.partial(plain_vpt, tokens=10),
    "moe_lora": functools.partial(moe_lora, patterns=["attention", "!*.proj"], ranks=RANKS),
    "plain moe_lora": functools.partial(plain_moe_lora, ranks=RANKS),
}


LOSSES = {
    "gend": DetectionLoss(uniformity=0.5, alignment=0.1),
    "bias_consist": DetectionLoss(smoothing=0.1, consistency=0.5, strong_share=0.5),
}
"""By method; the others have plain cross-entropy."""


def loss_of(name: str, model: Detector, image: Tensor) -> Callable[[], Tensor]:
    """The loss of a method on a batch, with its forward passes; views and labels are the same."""
    label = torch.arange(len(image), device=DEVICE) % 2
    weight = torch.ones(len(image), device=DEVICE)
    loss, features = LOSSES.get(name, DetectionLoss()), FeatureCapture(model)
    if loss.needs_features:
        features.attach()

    def logits() -> Tensor:
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=GPU):
            return model(image).float()

    def run() -> Tensor:
        outputs = Outputs(logits(), label, weight)
        if loss.needs_features:
            outputs = outputs._replace(feature=features.take())
        if loss.needs_strong_view:
            outputs = outputs._replace(strong_logit=logits())
        return torch.stack([term.mean() for term in loss(outputs).values()]).sum()

    return run


def step_of(name: str, size: Size = REAL) -> Callable[[], None]:
    """A training step of a method, which returns when the device is done."""
    model = size.model()
    adaptation = METHODS[name.removesuffix(COMPILED)](model)
    if name.endswith(COMPILED):
        model.compile()
    groups = decay_groups(model, 0.01)
    optimizer = torch.optim.AdamW(groups, lr=1e-4) if groups else None  # pyright: ignore[reportArgumentType]
    image = size.images()
    if name.removesuffix(COMPILED) == LIMIT:
        image = (image / 255).requires_grad_()
    loss = loss_of(name, model, image)

    def step() -> None:
        loss().backward()
        if adaptation.rule is not None:
            adaptation.rule.observe()
        if adaptation.penalties:
            torch.stack(
                [weight * penalty(model) for weight, penalty in adaptation.penalties.values()]
            ).sum().backward()
        if adaptation.rule is not None:
            adaptation.rule.before_step()
        if optimizer is not None:
            optimizer.step()
        model.zero_grad()
        image.grad = None
        if GPU:
            torch.accelerator.synchronize()

    return step


def peak(name: str) -> int:
    """Bytes that two steps of a method need, in this process; see above."""
    if DEVICE.type == "cuda":
        step = step_of(name)
        torch.cuda.reset_peak_memory_stats()
        for _ in range(2):
            step()
        return torch.cuda.max_memory_allocated()
    before = resident("VmRSS")
    step = step_of(name)
    ctypes.CDLL(None).malloc_trim(0)  # what decomposing has freed goes back to the system
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    for _ in range(2):
        step()
    return resident("VmHWM") - before


def resident(field: str) -> int:
    """Bytes of this process in memory now (VmRSS) or at most (VmHWM)."""
    line = next(
        line
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        if line.startswith(field)
    )
    return int(line.split()[1]) * 1024


def peaks() -> dict[str, int]:
    """`peak` of each measured method in a process of its own; empty without /proc.

    In these processes, large tensors do not share the allocator's heap.
    """
    if DEVICE.type not in ("cpu", "cuda") or not Path("/proc/self/clear_refs").exists():
        return {}
    place = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**18)}
    commands = {name: [sys.executable, __file__, "--memory", name] for name in MEASURED}
    return {
        name: int(subprocess.check_output(command, env=place, encoding="utf-8").split()[-1])
        for name, command in commands.items()
    }


def measure(rounds: int) -> list[Row]:
    """Every method as a share of full fine-tuning, ours beside its peers, and the peak memory."""
    memory = peaks()
    names = [*METHODS, *(name + COMPILED for name in ("full", LIMIT, "fmsd") if GPU)]
    seconds = interleaved({name: step_of(name) for name in names}, rounds, warmup=2 if GPU else 1)

    def share(name: str, goal: float | None = None) -> Row:
        return row(name, ratio(seconds, name, "full"), "x", goal, "full")

    def beside(name: str, own: str, peer: str, goal: float | None = None) -> Row:
        return row(name, ratio(seconds, own, peer), "x", goal, peer)

    rows = [
        row("full", statistics.median(seconds["full"]), "s/step"),
        share(LIMIT),
        share("fmsd"),
        beside("fmsd / limit", "fmsd", LIMIT, 1.03),
        share(LORA),
        beside("fmsd / peft LoRA", "fmsd", LORA, 1.0),
        share("our lora"),
        beside("pissa / our lora", "our lora, pissa", "our lora", 1.03),
        beside("lora_xs / our lora", "lora_xs", "our lora", 1.03),
        beside("svf / our lora", "svf", "our lora"),
        share("norm"),
        beside("gend / norm", "gend", "norm", 1.03),
        share("bitfit"),
        beside("bias_consist / bitfit", "bias_consist", "bitfit"),
        beside("fmsd with penalties / without", "fmsd with penalties", "fmsd", 1.03),
        beside("fmsd hard / soft", "fmsd hard", "fmsd", 1.1),
        share("fmsd, top half of the blocks", 0.53),
        share("masm"),
        share("effort, dense rebuild"),
        share(OSF),
        share("peft OSF"),
    ]
    for own in UNFOLDABLE:
        rows.append(share(own))
        rows.append(beside(f"{own} / plain", own, f"plain {own}", 1.05))
    if GPU:
        rows.append(row("full, compiled", statistics.median(seconds["full, compiled"]), "s/step"))
        rows.append(beside("fmsd, compiled", "fmsd, compiled", "full, compiled"))
        rows.append(beside("fmsd / limit, compiled", "fmsd, compiled", "limit, compiled"))
    for name, value in memory.items():
        rows.append(row(f"{name}, peak memory", value / 2**20, "MiB"))
        if name != "full":
            rows.append(
                row(f"{name}, peak memory as a share", value / memory["full"], "x", peer="full")
            )
    return rows


if __name__ == "__main__":
    parser = arguments("A training step of every method")
    parser.add_argument("--rounds", type=int, default=7, help="measured steps per method")
    parser.add_argument(
        "--memory",
        choices=METHODS,
        help="only print the bytes that this method's step needs at its peak",
    )
    options = parser.parse_args()
    if options.memory:
        print(peak(options.memory))
    else:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["FMSD_CACHE"] = (
                folder  # directions of random weights are of no use to anyone
            )
            report(f"A training step: {REAL}", measure(options.rounds), options.json)
