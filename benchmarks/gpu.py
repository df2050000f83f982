"""Everything that is asked of a GPU, in one process and a given number of minutes.

python benchmarks/gpu.py [--minutes 8] [--json FILE] [--tiny]

ViT-L/14 with random weights, 224 px, 32 images, bfloat16 autocast, AdamW: the size of `step.py`.
The parts run in the order of what they tell. One that would not fit into the minutes left, by its
expected time on an H200, is named and left out; one that fails is named with its error, and the
rest goes on. After every part all figures so far are written to FILE. The exit code is 1 if a part
failed or a figure exceeds its goal.

It needs torch, timm, lightning, torchmetrics, peft, safetensors, jaxtyping and rich, and of fmsd
nothing that needs more; the loader's part is left out where its packages are missing. On a machine
without a GPU it runs as well, which `--tiny` makes quick: that is how it is tested.

exactness   `exactness.py`: rounding, restoring, resuming.
methods     Every method beside LoRA of the `peft` package, in turn: a step as a multiple of its
            step, images/s, and the peak memory of the step beyond that of other models.
evaluation  A forward pass in evaluation beside one of the bare timm model under the same autocast.
wrappers    A step under each wrapper, with 1, 4 and 8 domains, as a multiple of ERM's.
compile     A step through torch.compile beside the eager one, and the time until it is compiled.
prepare     FMSD's directions of 96 matrices of 1024 x 1024, on the device and on the CPU.
merge       R2M's truncations of four specialists of two blocks, on the device and on the CPU.
loader      Images/s of the loader with 16 processes beside those of the fastest training step.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic CUDA needs

import exactness
import timm
import torch
import wrappers
from harness import Row, arguments, interleaved, ratio, report, row, write_json
from step import COMPILED, DEVICE, GPU, LORA, METHODS, REAL, TINY, WHERE, Size, step_of

from fmsd.linalg import singular_directions, truncate
from fmsd.optim.erm import ERM
from fmsd.optim.roga import RoGA
from fmsd.optim.sagm import SAGM
from fmsd.optim.sam import SAM
from fmsd.peft.probe import probe

TIMED = (
    *("full", "fmsd", "fmsd with penalties", "our lora", "masm", "limit", "gend", "bias_consist"),
    *("adapter", "vpt", "moe_lora", "norm", "bitfit", "svf", "lora_xs", "effort, dense rebuild"),
)
"""The methods of `step.py` that are timed, the most telling first."""

GOALS = {"fmsd": 1.05}
"""Largest step of a method as a multiple of LoRA's of the `peft` package."""

EVALUATION_GOAL = 1 / 0.9
WRAPPER_GOAL = 2.05
PER_SECOND = "images/s"


class Settings(NamedTuple):
    """Size and repetitions."""

    size: Size
    rounds: int
    matrices: int
    width: int
    sampled: int
    files: int


LARGE = Settings(REAL, rounds=7, matrices=96, width=1024, sampled=8, files=16)
SMALL = Settings(TINY, rounds=1, matrices=4, width=224, sampled=2, files=1)


def synchronise() -> None:
    """Waits until the device is done."""
    if GPU:
        torch.accelerator.synchronize()


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds of one call, until the device is done."""
    synchronise()
    start = time.perf_counter()
    work()
    synchronise()
    return time.perf_counter() - start


@contextmanager
def released() -> Iterator[None]:
    """Gives the device's memory back after the block."""
    try:
        yield
    finally:
        if DEVICE.type == "cuda":
            torch.cuda.empty_cache()


def peak_of(step: Callable[[], None], before: int) -> list[Row]:
    """Peak memory of two steps beyond `before`; no row without CUDA."""
    if DEVICE.type != "cuda":
        return []
    torch.cuda.reset_peak_memory_stats()
    step()
    step()
    return [row("peak memory", (torch.cuda.max_memory_allocated() - before) / 2**20, "MiB")]


def methods(settings: Settings) -> Iterator[Row]:
    """Every method beside LoRA of the `peft` package."""
    size = settings.size
    peer = step_of(LORA, size)
    for name in TIMED:
        with released():
            before = torch.cuda.memory_allocated() if DEVICE.type == "cuda" else 0
            step = step_of(name, size)
            memory = peak_of(step, before)
            seconds = interleaved({LORA: peer, name: step}, settings.rounds, warmup=2)
            del step
        yield row(f"{name} / {LORA}", ratio(seconds, name, LORA), "x", GOALS.get(name), LORA)
        yield row(name, size.batch / statistics.median(seconds[name]), PER_SECOND)
        for line in memory:
            yield Row({**line, "name": f"{name}, {line['name']}"})


def evaluation(settings: Settings) -> Iterator[Row]:
    """The detector's forward pass beside the bare timm model's."""
    size = settings.size
    image = size.images()
    plain, adapted = size.model(), size.model()
    probe(plain)
    METHODS["fmsd"](adapted)
    with DEVICE:
        bare = timm.create_model(size.backbone, num_classes=1, **size.arguments)
    normalised = torch.randn(image.shape, device=DEVICE)

    def forward(model: torch.nn.Module, pixels: torch.Tensor) -> Callable[[], None]:
        model.to(DEVICE).eval()

        def run() -> None:
            with (
                torch.inference_mode(),
                torch.autocast(DEVICE.type, torch.bfloat16, enabled=GPU),
            ):
                model(pixels)
            synchronise()

        return run

    steps = {
        "timm": forward(bare, normalised),
        "detector": forward(plain, image),
        "detector with fmsd": forward(adapted, image),
    }
    seconds = interleaved(steps, 3 * settings.rounds, warmup=2)
    for name in list(steps)[1:]:
        yield row(f"{name} / timm", ratio(seconds, name, "timm"), "x", EVALUATION_GOAL, "timm")
        yield row(name, size.batch / statistics.median(seconds[name]), PER_SECOND)


def optimizer_wrappers(settings: Settings) -> Iterator[Row]:
    """Every wrapper as a multiple of ERM."""
    task = wrappers.Task(settings.size, ["attention"])
    steps = {
        "ERM": wrappers.wrapped(task, ERM()),
        "SAM": wrappers.wrapped(task, SAM()),
        "SAGM": wrappers.wrapped(task, SAGM()),
        **{f"RoGA, k = {count}": wrappers.wrapped(task, RoGA(), count) for count in (1, 4, 8)},
    }
    seconds = interleaved(steps, settings.rounds, warmup=2)
    for name in list(steps)[1:]:
        yield row(f"{name} / ERM", ratio(seconds, name, "ERM"), "x", WRAPPER_GOAL, "ERM")


def compiled(settings: Settings) -> Iterator[Row]:
    """Steps through torch.compile beside eager ones."""
    for name in ("fmsd", "full"):
        with released():
            eager = step_of(name, settings.size)
            fast = step_of(name + COMPILED, settings.size)
            first = seconds_of(fast)
            seconds = interleaved({"eager": eager, "compiled": fast}, settings.rounds, warmup=2)
            del eager, fast
        yield row(f"{name}, first compiled step", first, "s")
        yield row(f"{name}, compiled / eager", ratio(seconds, "compiled", "eager"), "x", 1.0, name)


def prepare(settings: Settings) -> Iterator[Row]:
    """FMSD's directions, without a cache; on the CPU those of some matrices, scaled up."""
    torch.manual_seed(0)
    matrices = torch.randn(settings.matrices, settings.width, settings.width)
    places = {"cpu": matrices[: settings.sampled]}
    if GPU:
        places[DEVICE.type] = matrices.to(DEVICE)
    for place, some in places.items():
        singular_directions(some[0], 4)
        taken = seconds_of(lambda some=some: [singular_directions(each, 4) for each in some])
        yield row(
            f"directions of {settings.matrices} matrices, {place}",
            taken * settings.matrices / len(some),
            "s",
        )


def merge(settings: Settings) -> Iterator[Row]:
    """R2M's truncations at a tenth of the rank."""
    torch.manual_seed(0)
    width = settings.width
    shapes = ([(width, width)] * 4 + [(4 * width, width)] * 2) * 2
    tasks = [torch.randn(shape) for shape in shapes for _ in range(4)]
    places = ["cpu", DEVICE.type] if GPU else ["cpu"]
    for place in places:
        moved = [task.to(place) for task in tasks]
        for svd in ("krylov", "exact"):
            some = moved if svd == "krylov" else moved[: 2 * settings.sampled]
            truncate(some[0], width // 10, svd)
            taken = seconds_of(
                lambda some=some, svd=svd: [truncate(each, width // 10, svd) for each in some]
            )
            yield row(f"{svd} truncation, {place}", taken / len(some), "s/matrix")


def loading(settings: Settings) -> Iterator[Row]:
    """The loader beside the fastest step.

    Raises:
        ImportError: its packages are missing.
    """
    import loader  # noqa: PLC0415  needs packages that the other parts do without

    with tempfile.TemporaryDirectory() as folder:
        yield from loader.measure(2, settings.files, None, Path(folder))


class Part(NamedTuple):
    """A group of figures, and its expected seconds on an H200."""

    name: str
    expected: float
    measure: Callable[[Settings], "Iterator[Row] | list[Row]"]


PARTS = (
    Part("exactness", 30, lambda settings: exactness.measure(settings.size)),
    Part("methods", 150, methods),
    Part("evaluation", 15, evaluation),
    Part("wrappers", 30, optimizer_wrappers),
    Part("compile", 120, compiled),
    Part("prepare", 40, prepare),
    Part("merge", 40, merge),
    Part("loader", 60, loading),
)


def run(settings: Settings, minutes: float, path: Path | None) -> tuple[list[Row], dict[str, str]]:
    """The figures of all parts that fit, and what is missing with its reason.

    Args:
        path: gets all figures so far after every part; None for no file.
    """
    start = time.monotonic()
    rows: list[Row] = []
    missing: dict[str, str] = {}
    for part in PARTS:
        left = 60 * minutes - (time.monotonic() - start)
        if left < part.expected:
            missing[part.name] = f"left out: {left:.0f} s are left of {minutes:g} minutes"
        else:
            try:
                with released():
                    for line in part.measure(settings):
                        rows.append(line)
                        print(f"{line['name']}: {line['value']:.4g} {line['unit']}", flush=True)
            except ImportError as error:
                missing[part.name] = f"left out: {error}"
            except Exception as error:  # the other parts are worth their minutes all the same
                missing[part.name] = f"failed: {type(error).__name__}: {error}"
        if part.name in missing:
            print(f"{part.name} {missing[part.name]}", flush=True)
        if path:
            write_json(path, summary(rows, missing))
    return rows, missing


def summary(rows: list[Row], missing: Mapping[str, str]) -> dict[str, object]:
    """What is written."""
    return {"device": WHERE, "torch": torch.__version__, "rows": rows, "missing": missing}


def main() -> int:
    """Measures, prints and writes; returns the exit code."""
    parser = arguments("Everything that is asked of a GPU")
    parser.add_argument("--minutes", type=float, default=8, help="time that may be used")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to try the script out")
    options = parser.parse_args()
    settings = SMALL if options.tiny else LARGE
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FMSD_CACHE"] = folder  # directions of random weights are of no use to anyone
        rows, missing = run(settings, options.minutes, options.json)
    if rows:
        report(f"On {WHERE}: {settings.size}", rows, None)
    exceeded = exactness.failures(rows)
    for line in exceeded:
        print(f"above its goal: {line}")
    for name, why in missing.items():
        print(f"{name} {why}")
    return int(bool(exceeded) or any(why.startswith("failed") for why in missing.values()))


if __name__ == "__main__":
    sys.exit(main())
