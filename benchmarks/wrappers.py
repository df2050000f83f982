"""The cost of a training step under every optimizer wrapper, as a multiple of ERM's.

python benchmarks/wrappers.py [--rounds N] [--json PATH] [--small]

The backbone of `step.py` with 16 images of 224 pixels in float32; on a GPU 32 images in bfloat16
autocast. Weights are random: they do not change the cost. The method is fmsd, 4 directions per
matrix: on all attention matrices, or on those of the top half of the blocks. A step is the wrapper
with its passes, made as the learner makes them, and AdamW's step. Each domain holds the same number
of images, half of them fake. ERM is one pass over the whole batch; it is measured in the same
rounds, and again at their end, which shows the noise.

Wrappers perturb the backbone and leave the head in place, as they do by default; the peers perturb
both, which costs the same.

Two peers, plain loops over parameters written for this comparison from the published
descriptions:

    GAC-FAS loop    Le & Woo, CVPR 2024: the gradient of each domain on its own frames; then, for
                    each domain, the gradient of the whole batch at the parameters moved up along
                    the domain's gradient and down along the whole one. 1 + k passes over the batch.
                    The result is weighted as in RoGA: half the gradient, half the mean of those at
                    the ascending points.
    two-step SAM    Foret et al., ICLR 2021, as an optimizer around an optimizer: `first_step`
                    climbs and keeps the old parameters in its state, `second_step` puts them back
                    and steps; the caller runs both passes.

Before anything is timed, on the top half of the blocks and two images per domain, a RuntimeError
says if RoGA(evaluate="all", gamma=1) and the GAC-FAS loop, or SAM and two-step SAM, each with
perturb="all", differ by more than 1e-4 of the gradient's norm. On a GPU this takes float32 and the
plain attention kernel: others add in any order, so that two equal passes differ.
"""

import contextlib
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from harness import Row, arguments, interleaved, ratio, report, row
from step import DEVICE, GPU, REAL, TINY, Size, ours
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from fmsd.optim.erm import ERM
from fmsd.optim.groups import decay_groups
from fmsd.optim.replay import Repeatable
from fmsd.optim.roga import RoGA
from fmsd.optim.sagm import SAGM
from fmsd.optim.sam import SAM
from fmsd.optim.wrapper import OptimizerWrapper, Pass

RATE = 1e-6
"""AdamW's learning rate, small because all steps of a method train the same detector."""

DOMAINS = 4
TOLERANCE = 1e-4
TOP = "top half, "
LOOP, TWO_STEP = "GAC-FAS loop", "two-step SAM"


SIZE = REAL._replace(batch=max(REAL.batch, 16))


class Batch(NamedTuple):
    """Images as bytes and their labels, every second one fake."""

    image: Tensor
    label: Tensor

    def parts(self, domains: int) -> Iterator["Batch"]:
        """The frames of each domain, picked as the learner picks them."""
        domain = torch.arange(len(self.label)) * domains // len(self.label)
        for wanted in range(domains):
            index = (domain == wanted).nonzero().flatten().to(DEVICE)
            yield Batch(self.image[index], self.label[index])


class Task:
    """The detector with fmsd on `patterns`, and the batch, of all steps of a method."""

    def __init__(self, size: Size, patterns: Sequence[str]) -> None:
        self.model = size.model()
        ours(self.model, patterns=patterns)
        self.params = [
            parameter for parameter in self.model.parameters() if parameter.requires_grad
        ]
        self.head = list(self.model.head().parameters())
        label = (torch.arange(size.batch, device=DEVICE) % 2).float()
        self.batch = Batch(size.images(), label)
        self.mixed = GPU

    def loss(self, part: Batch, total: int) -> Tensor:
        """The share of some frames in the mean loss of `total` frames."""
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.mixed):
            logits = self.model(part.image).float()
        return (
            functional.binary_cross_entropy_with_logits(logits, part.label, reduction="none").sum()
            / total
        )

    def passes(self, batch: Batch, domains: int) -> list[Pass]:
        """A pass per domain, or a single one over the whole batch; see `Learner.passes`."""
        total = len(batch.label)

        def one(part: Batch) -> Pass:
            def run() -> Tensor:
                loss = self.loss(part, total)
                loss.backward()
                return loss.detach()

            return Repeatable(run, self.model)

        return [one(part) for part in (batch.parts(domains) if domains > 1 else (batch,))]

    def groups(self) -> Any:
        """AdamW's parameters."""
        return decay_groups(self.model, 0.01)


class TwoStepSAM(torch.optim.Optimizer):
    """SAM as an optimizer around AdamW, parameter by parameter; see above."""

    def __init__(self, groups: Any, rho: float = 0.05, lr: float = RATE) -> None:
        super().__init__(groups, {"rho": rho})
        self.inner = torch.optim.AdamW(self.param_groups, lr=lr)

    @torch.no_grad()
    def first_step(self) -> None:
        """Climbs to the ascending point."""
        lengths = [
            parameter.grad.norm()
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        length = torch.stack(lengths).norm()
        for group in self.param_groups:
            factor = group["rho"] / (length + 1e-12)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.state[parameter]["old"] = parameter.detach().clone()
                    parameter.add_(parameter.grad * factor)
        self.zero_grad()

    @torch.no_grad()
    def second_step(self) -> None:
        """Goes back, and steps with the gradient of up there."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.copy_(self.state[parameter]["old"])
        self.inner.step()
        self.zero_grad()


def gac_fas(task: Task, batch: Batch, domains: int, rho: float = 0.05, alpha: float = 1e-3) -> None:
    """Leaves in p.grad the direction of the GAC-FAS loop; see above."""
    total = len(batch.label)

    def gradient(part: Batch) -> list[Tensor]:
        task.model.zero_grad()
        task.loss(part, total).backward()
        return [parameter.grad.clone() for parameter in task.params if parameter.grad is not None]

    own = [gradient(part) for part in batch.parts(domains)]
    whole = [torch.stack(parts).sum(0) for parts in zip(*own, strict=True)]
    aligned = [torch.zeros_like(part) for part in whole]
    for ascent in own:
        length = torch.stack([part.norm() for part in ascent]).norm() + 1e-12
        old = [parameter.detach().clone() for parameter in task.params]
        with torch.no_grad():
            for parameter, up, down in zip(task.params, ascent, whole, strict=True):
                parameter.add_(rho * up / length - alpha * down)
        for mean, part in zip(aligned, gradient(batch), strict=True):
            mean.add_(part / domains)
        with torch.no_grad():
            for parameter, before in zip(task.params, old, strict=True):
                parameter.copy_(before)
    for parameter, part, mean in zip(task.params, whole, aligned, strict=True):
        parameter.grad = (part + mean) / 2


def finish() -> None:
    """Waits until the device is done."""
    if GPU:
        torch.accelerator.synchronize()


def wrapped(task: Task, wrapper: OptimizerWrapper, domains: int = 1) -> Callable[[], None]:
    """A step with a wrapper of ours, made as in `Learner.step`."""
    optimizer = torch.optim.AdamW(task.groups(), lr=RATE)

    def step() -> None:
        wrapper(task.params, task.passes(task.batch, domains), head=task.head)
        optimizer.step()
        optimizer.zero_grad()
        finish()

    return step


def looped(task: Task) -> Callable[[], None]:
    """A step of the GAC-FAS loop."""
    optimizer = torch.optim.AdamW(task.groups(), lr=RATE)

    def step() -> None:
        gac_fas(task, task.batch, DOMAINS)
        optimizer.step()
        optimizer.zero_grad()
        finish()

    return step


def stepped(task: Task) -> Callable[[], None]:
    """A step of two-step SAM."""
    optimizer = TwoStepSAM(task.groups())
    total = len(task.batch.label)

    def step() -> None:
        task.loss(task.batch, total).backward()
        optimizer.first_step()
        task.loss(task.batch, total).backward()
        optimizer.second_step()
        finish()

    return step


def check(task: Task) -> None:
    """Compares gradients on a batch of two images per domain; see above.

    Raises:
        RuntimeError: two that should be equal differ.
    """
    batch = Batch(*(part[: 2 * DOMAINS] for part in task.batch))

    def found() -> Tensor:
        return torch.cat(
            [parameter.grad.flatten() for parameter in task.params if parameter.grad is not None]
        )

    def direction(wrapper: OptimizerWrapper, domains: int = DOMAINS) -> Tensor:
        wrapper(task.params, task.passes(batch, domains), head=task.head)
        return found()

    def near(names: str, own: Tensor, peer: Tensor) -> None:
        error = (torch.linalg.vector_norm(peer - own) / torch.linalg.vector_norm(own)).item()
        if not error <= TOLERANCE:
            raise RuntimeError(f"{names} differ by {error:.1e} of the gradient's norm.")

    task.mixed = False
    with sdpa_kernel(SDPBackend.MATH) if GPU else contextlib.nullcontext():
        own = direction(RoGA(evaluate="all", gamma=1.0, perturb="all"))
        gac_fas(task, batch, DOMAINS)
        near("RoGA(evaluate='all', gamma=1) and the GAC-FAS loop", own, found())
        own = direction(SAM(perturb="all"), 1)
        task.model.zero_grad()
        peer = TwoStepSAM(task.groups(), lr=0.0)
        task.loss(batch, len(batch.label)).backward()
        peer.first_step()
        task.loss(batch, len(batch.label)).backward()
        near("SAM and two-step SAM", own, found())
        peer.second_step()
    task.mixed = GPU


def measure(size: Size, rounds: int) -> list[Row]:
    """Every wrapper as a multiple of ERM on the same method."""
    everything = Task(size, ["attention"])
    top = Task(size, [f"blocks.{block}.attn.*" for block in range(size.depth // 2, size.depth)])
    check(top)
    steps = {
        "ERM": wrapped(everything, ERM()),
        "SAM": wrapped(everything, SAM()),
        "SAGM": wrapped(everything, SAGM()),
        **{
            f"RoGA own, {count} {domains(count)}": wrapped(everything, RoGA(), count)
            for count in (1, 2, 4, 8)
        },
        f"RoGA all, {DOMAINS} domains": wrapped(everything, RoGA(evaluate="all"), DOMAINS),
        LOOP: looped(everything),
        TWO_STEP: stepped(everything),
        "ERM again": wrapped(everything, ERM()),
        TOP + "ERM": wrapped(top, ERM()),
        TOP + "SAM": wrapped(top, SAM()),
        TOP + "SAGM": wrapped(top, SAGM()),
        f"{TOP}RoGA own, {DOMAINS} domains": wrapped(top, RoGA(), DOMAINS),
    }
    seconds = interleaved(steps, rounds, warmup=2 if GPU else 1)

    rows = []
    for name in steps:
        peer = TOP + "ERM" if name.startswith(TOP) else "ERM"
        if name == peer:
            rows.append(row(name, statistics.median(seconds[name]), "s/step"))
        else:
            rows.append(row(name, ratio(seconds, name, peer), "x", goal(name), peer))
    for own, peer in (
        ("SAM", TWO_STEP),
        (f"RoGA own, {DOMAINS} domains", LOOP),
        (f"RoGA all, {DOMAINS} domains", LOOP),
    ):
        rows.append(row(f"{own} / {peer}", ratio(seconds, own, peer), "x", peer=peer))
    return rows


def domains(count: int) -> str:
    """The word."""
    return "domain" if count == 1 else "domains"


def goal(name: str) -> float | None:
    """The largest cost of a wrapper of ours with two passes; None for all others."""
    return 2.05 if name.startswith(("SAM", "SAGM", "RoGA own")) else None


if __name__ == "__main__":
    parser = arguments("Optimizer wrappers: a training step as a multiple of ERM's")
    parser.add_argument("--rounds", type=int, default=3, help="measured steps per wrapper")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the script out")
    options = parser.parse_args()
    chosen = TINY if options.small else SIZE
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FMSD_CACHE"] = folder  # directions of random weights are of no use to anyone
        report(f"Optimizer wrappers: {chosen}", measure(chosen, options.rounds), options.json)
