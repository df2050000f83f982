"""The cost of a training step of each method beside full fine-tuning, measured side by side.

python benchmarks/step.py [--json PATH]
"""

import functools
from collections.abc import Callable

import torch
from harness import Row, interleaved, main, row
from torch.nn import functional

from fmsd.models.detector import detector
from fmsd.optim.groups import decay_groups
from fmsd.peft.fmsd import fmsd
from fmsd.peft.full import full
from fmsd.peft.inject import Method
from fmsd.peft.probe import probe

ATTENTION = ["*attn.qkv", "*attn.proj"]
PENALTIES = {"orthogonality": 0.1, "spectral": 0.1}
METHODS: dict[str, Method] = {
    "full": full,
    "fmsd": functools.partial(fmsd, patterns=ATTENTION, subspaces=4, directions=1, penalties=PENALTIES),
    "fmsd without penalties": functools.partial(fmsd, patterns=ATTENTION, subspaces=4, directions=1),
    "effort": functools.partial(fmsd, patterns=ATTENTION, subspaces=1, directions=1),
    "probe": probe,
}


def step_of(method: Method) -> Callable[[], None]:
    """One AdamW step on a batch of 8 images of 224 pixels with ViT-S/16 (random weights)."""
    torch.manual_seed(0)
    model = detector("vit_small_patch16_224", size=224)
    penalties = method(model)
    optimizer = torch.optim.AdamW(decay_groups(model, 0.01), lr=1e-4)  # pyright: ignore[reportArgumentType]
    image, label = torch.randint(0, 256, (8, 3, 224, 224), dtype=torch.uint8), torch.arange(8) % 2

    def step() -> None:
        loss = functional.binary_cross_entropy_with_logits(model(image), label.float())
        for weight, penalty in penalties.values():
            loss = loss + weight * penalty(model)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def measure() -> list[Row]:
    """Median seconds of full fine-tuning, and every method as a share of it."""
    seconds = interleaved({name: step_of(method) for name, method in METHODS.items()}, rounds=7)
    rows = [row("full", seconds["full"], "s/step")]
    return rows + [row(name, seconds[name] / seconds["full"], "x", peer="full") for name in METHODS if name != "full"]


if __name__ == "__main__":
    main("A training step, ViT-S/16, 224 px, batch 8", measure)
