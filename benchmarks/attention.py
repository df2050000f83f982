"""The cost of a training step on the CPU with and without fused attention, in two precisions.

python benchmarks/attention.py [--rounds N] [--json PATH]

SAM 2's Hiera-T with 16 images of 64 pixels and fmsd on all attention matrices, on one thread, in
float32 and in bfloat16 autocast, all measured in turn. Weights are random: they do not change the
cost. Outside of this file `TIMM_FUSED_ATTN=0` turns the fused attention off.
"""

import statistics
from collections.abc import Callable

import torch
from harness import Row, arguments, interleaved, ratio, report, row
from timm.layers.config import set_fused_attn

from fmsd.models.detector import detector
from fmsd.peft.fmsd import fmsd

BATCH, PIXELS = 16, 64
KINDS = {"float32": False, "bfloat16": True}


def step_of(fused: bool, mixed: bool) -> Callable[[], None]:
    """A forward and a backward pass."""
    torch.manual_seed(0)
    set_fused_attn(fused)
    model = detector("sam2_hiera_tiny", size=PIXELS)
    fmsd(model, patterns=["attention"], subspaces=4, directions=1)
    image = torch.randint(0, 256, (BATCH, 3, PIXELS, PIXELS), dtype=torch.uint8)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = model(image).float().mean()
        loss.backward()

    return step


def measure(rounds: int) -> list[Row]:
    """Seconds per image, and each kind as a share of fused attention in float32."""
    torch.set_num_threads(1)
    steps = {
        f"{kind}, {'fused' if fused else 'plain'}": step_of(fused, mixed)
        for kind, mixed in KINDS.items()
        for fused in (True, False)
    }
    seconds = interleaved(steps, rounds)
    rows = [row(name, statistics.median(own) / BATCH, "s/image") for name, own in seconds.items()]
    rows += [
        row(
            f"{name} / float32, fused",
            ratio(seconds, name, "float32, fused"),
            "x",
            None,
            "float32, fused",
        )
        for name in list(steps)[1:]
    ]
    return rows


if __name__ == "__main__":
    title = f"Attention on the CPU: SAM 2's Hiera-T, {PIXELS} px, batch {BATCH}, one thread"
    parser = arguments(title)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    report(title, measure(options.rounds), options.json)
