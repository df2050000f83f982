"""Merging four specialists of ViT-L/14, from files to a file: time and peak memory.

python benchmarks/merge.py [--rounds N] [--folder PATH] [--lowrank] [--peers] [--json PATH]
[--small]

R2M is measured beside the plain average, the limit of its SVDs and, with `--peers`, mergekit.

A base and four experts in float32 safetensors files; names, shapes and parts are those of the
backbone. Weights are random: they do not change the cost. They are written once, tensor by tensor,
into a folder of their own that is removed at the end; the mergers' temporary files and the output
lie there too. That takes up to 10 GB of disk.

A run reads the files through `StateFile` and writes the merged one with `write_state`. Each is a
fresh process; all are measured in turn, round by round. Seconds go from opening the files to the
closed output, without imports and without fsync. All input files are read once before each run, so
that they come from the page cache, and dirty pages are flushed, so that no run pays for the output
of the one before. Where page cache and processes do not fit into memory together, the figures are
those of the disk.

Peak memory is the largest sum of RssAnon, RssShmem and VmSwap in /proc/PID/status over the whole
process, sampled every 20 ms (Linux only): what belongs to the process, imports included, but
neither mapped files nor page cache, which the system can take back.

"limit" is what the truncated SVDs of R2M cost where only products of matrices count. A randomised
SVD as `torch.svd_lowrank(A, q, niter=2)` makes three products A X and three A^T Y with q = rank + 8
columns per matrix and expert; no QR, no small SVD, no product of the factors is counted. Each
product is timed by itself on random matrices of the same shape with torch's default threads, the
best of many runs. R2M with its Gram matrices and svd=krylov should take no longer than two averages
and that. "r2m, svd=exact", the default, is measured in the first round only.

"--lowrank" adds R2M with its SVDs by `torch.svd_lowrank`: the tensors of the first two blocks are
merged with either, and R2M's seconds are scaled by the ratio. "--peers" adds the mergekit package
where it can be imported: its `mergekit-pytorch` command, which merges any safetensors files, timed
in the same way but in the first round only, with task_arithmetic (weight 0.4) and ties (density
0.2) as ours; it trims tensor by tensor.

The last rows are the energy that a rank-102 approximation of a 1024 x 1024 matrix holds, as a share
of what the best one holds, and the bound that is known without that one: of noise, and of a matrix
with singular values j^-1/2.
"""

import argparse
import importlib
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from harness import Row, arguments, ratio, report, row
from torch import Tensor

from fmsd.linalg import Quality, Truncation, truncate
from fmsd.merge import r2m
from fmsd.merge.average import Average
from fmsd.merge.r2m import R2M
from fmsd.merge.task_arithmetic import TaskArithmetic
from fmsd.merge.task_vectors import Merger, Specialists, TensorPart, merge_tensors
from fmsd.merge.ties import TIES
from fmsd.models.detector import detector, meta_detector
from fmsd.peft.parts import network_parts
from fmsd.state import StateFile, tensor_shapes, write_state

BACKBONE = "vit_large_patch14_clip_224"
EXPERTS = 4
OVERSAMPLING, ITERATIONS = 8, 2
"""Of `torch.svd_lowrank`."""

AVERAGE, OURS, EXACT, LIMIT, SAMPLE = (
    "average",
    "r2m, svd=krylov",
    "r2m, svd=exact",
    "limit",
    "sample",
)
KRYLOV = R2M(svd="krylov", least_energy=0.0)
"""Whatever it holds: of random weights it is known to hold little."""

BOUND = "2 average + limit"
MERGERS: dict[str, Merger] = {
    AVERAGE: Average(),
    OURS: KRYLOV,
    EXACT: R2M(),
    "task arithmetic": TaskArithmetic(scale=0.4),
    "ties, trim=tensor": TIES(density=0.2, trim="tensor"),
    "ties, trim=model": TIES(density=0.2, trim="model"),
}


class Peer(NamedTuple):
    """A merge by mergekit, and which of ours does the same."""

    method: str
    parameters: Mapping[str, float]
    ours: str


PEERS = {
    "mergekit task_arithmetic": Peer("task_arithmetic", {"weight": 0.4}, "task arithmetic"),
    "mergekit ties": Peer("ties", {"weight": 1.0, "density": 0.2}, "ties, trim=tensor"),
}
MERGEKIT = "mergekit.scripts.merge_raw_pytorch"
"""The module of its command for raw checkpoints."""


class Model(NamedTuple):
    """What is merged."""

    shapes: dict[str, torch.Size]
    parts: dict[str, TensorPart]

    @property
    def numbers(self) -> int:
        """Its parameters."""
        return sum(shape.numel() for shape in self.shapes.values())

    @property
    def layout(self) -> dict[str, tuple[torch.Size, torch.dtype]]:
        """Of its file."""
        return {name: (shape, torch.float32) for name, shape in self.shapes.items()}


def model(small: bool) -> Model:
    """The backbone, or four blocks of a quarter of the width."""
    settings = {"depth": 4, "embed_dim": 256, "num_heads": 4} if small else {}
    empty = meta_detector(partial(detector, BACKBONE, size=224, **settings))
    return Model(tensor_shapes(empty.backbone.state_dict()), network_parts(empty))


def inputs(folder: Path) -> list[Path]:
    """The files of the base and of the experts."""
    return [
        folder / f"{name}.safetensors"
        for name in ("base", *(f"expert{place}" for place in range(EXPERTS)))
    ]


def prepare(folder: Path, model: Model) -> None:
    """Writes random weights; those of an expert are the base's and a small difference.

    Raises:
        SystemExit: too little room.
    """
    needed, free = (EXPERTS + 4) * 4 * model.numbers, shutil.disk_usage(folder).free
    if free < needed:
        raise SystemExit(
            f"The files need {needed / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are "
            "free; give another --folder."
        )
    base, *experts = inputs(folder)

    def fresh(generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        return (
            (name, torch.randn(shape, generator=generator).mul_(0.02))
            for name, shape in model.shapes.items()
        )

    write_state(base, model.layout, fresh(torch.Generator().manual_seed(0)))
    start = StateFile(base)
    for place, path in enumerate(experts, start=1):
        tensors = fresh(torch.Generator().manual_seed(place))
        write_state(
            path,
            model.layout,
            ((name, tensor.mul_(0.1).add_(start[name])) for name, tensor in tensors),
        )


def specialists(folder: Path, model: Model, prefixes: tuple[str, ...] = ("",)) -> Specialists:
    """The files, opened; only the tensors whose names begin so."""
    base, *experts = (StateFile(path) for path in inputs(folder))
    return Specialists(
        base,
        experts,
        {name: part for name, part in model.parts.items() if name.startswith(prefixes)},
    )


def merging(folder: Path, model: Model, merger: Merger) -> float:
    """Seconds of one merge, to be measured in a process of its own."""
    start = time.perf_counter()
    write_state(
        folder / "out" / "merged.safetensors",
        model.layout,
        ((m.name, m.tensor) for m in merge_tensors(specialists(folder, model), merger)),
    )
    return time.perf_counter() - start


def limit(model: Model, repetitions: int = 20) -> float:
    """Seconds of the products of matrices in the SVDs; see above."""

    def best(work: Callable[[], object]) -> float:
        seconds = []
        for _ in range(repetitions):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    found: Counter[tuple[int, int]] = Counter()
    for name, part in model.parts.items():
        if part.kind == "matrix":
            slices, rows, columns = part.matrices(
                torch.empty(model.shapes[name], device="meta")
            ).shape
            found[rows, columns] += slices
    total = 0.0
    for (rows, columns), count in found.items():
        matrix = torch.randn(rows, columns)
        width = max(1, int(KRYLOV.ratio * min(rows, columns))) + OVERSAMPLING
        right, left = torch.randn(columns, width), torch.randn(rows, width)
        both = best(lambda a=matrix, x=right: a @ x) + best(lambda a=matrix, y=left: a.mT @ y)
        total += EXPERTS * count * (1 + ITERATIONS) * both
    return total


krylov = partial(truncate, svd="krylov", least_energy=0.0)


def lowrank(matrix: Tensor, rank: int, *settings: object) -> Truncation:
    """`fmsd.linalg.truncate` by `torch.svd_lowrank`, which measures nothing."""
    if matrix.shape[0] < matrix.shape[1]:
        found = lowrank(matrix.mT, rank)
        return found._replace(left=found.right.mT, right=found.left.mT)
    u, s, v = torch.svd_lowrank(
        matrix, q=min(rank + OVERSAMPLING, matrix.shape[1]), niter=ITERATIONS
    )
    return Truncation((u * s)[:, :rank], v[:, :rank].mT, Quality(math.nan, math.nan))


def sample(folder: Path, model: Model) -> float:
    """R2M's time with `torch.svd_lowrank` over its own, measured on the first two blocks."""

    def seconds(svd: Callable[..., Truncation]) -> float:
        r2m.truncate = svd
        start = time.perf_counter()
        for _ in merge_tensors(specialists(folder, model, ("blocks.0.", "blocks.1.")), KRYLOV):
            pass
        return time.perf_counter() - start

    seconds(truncate)
    return seconds(lowrank) / seconds(truncate)


def peering(folder: Path, peer: Peer) -> float:
    """Seconds of one merge by mergekit's command, to be measured in a process of its own."""
    command = importlib.import_module(MERGEKIT).main
    base, *experts = map(str, inputs(folder))
    models = [{"model": path, "parameters": dict(peer.parameters)} for path in experts]
    config = folder / "mergekit.yml"
    config.write_text(
        json.dumps(
            {"merge_method": peer.method, "base_model": base, "models": models, "dtype": "float32"}
        ),
        encoding="utf-8",
    )  # JSON is YAML
    start = time.perf_counter()
    command([str(config), str(folder / "out")], standalone_mode=False)
    return time.perf_counter() - start


def task(name: str, folder: Path, small: bool) -> float:
    """What a process of its own measures."""
    if name in PEERS:
        return peering(folder, PEERS[name])
    own = model(small)
    if name == LIMIT:
        return limit(own)
    return sample(folder, own) if name == SAMPLE else merging(folder, own, MERGERS[name])


class Result(NamedTuple):
    """What a task measured, and the bytes of its process at their peak."""

    value: float
    peak: int


def run(name: str, folder: Path, small: bool) -> Result:
    """A task in a process of its own.

    Raises:
        RuntimeError: it failed.
    """
    for path in inputs(folder):
        with path.open("rb") as file:
            while file.read(1 << 24):
                pass
    os.sync()
    command = [
        sys.executable,
        __file__,
        "--task",
        name,
        "--folder",
        str(folder),
        *(["--small"] if small else []),
    ]
    peak = 0
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as errors,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            env=os.environ | {"TMPDIR": str(folder)},
        ) as process,
    ):
        try:
            while process.poll() is None:
                peak = max(peak, held(process.pid))
                time.sleep(0.02)
        except BaseException:
            process.kill()
            raise
        output = process.stdout.read() if process.stdout else ""
        errors.seek(0)
        if process.returncode:
            raise RuntimeError(f"{name} failed:\n{errors.read()[-2000:]}")
    shutil.rmtree(folder / "out", ignore_errors=True)
    return Result(float(output.split()[-1]), peak)


def held(process: int) -> int:
    """Bytes that belong to a process alone; see above. 0 where the system does not tell."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return sum(
        1024 * int(line.split()[1])
        for line in lines
        if line.startswith(("RssAnon", "RssShmem", "VmSwap"))
    )


def accuracy() -> list[Row]:
    """What truncated SVDs hold of the best approximation's energy."""
    size, rank = 1024, 102
    generator = torch.Generator().manual_seed(0)
    noise, left, right = (torch.randn(size, size, generator=generator) for _ in range(3))
    u, v = torch.linalg.qr(left).Q, torch.linalg.qr(right).Q
    rows = []
    for what, matrix in (
        ("noise", noise),
        ("singular values j^-1/2", u * torch.arange(1, size + 1).rsqrt() @ v.mT),
    ):
        best = torch.linalg.svdvals(matrix)[:rank].double().square().sum()
        for name, svd in (("fmsd.linalg.truncate", krylov), ("torch.svd_lowrank", lowrank)):
            first, second, quality = svd(matrix, rank)
            energy = (
                matrix.double().square().sum() - (matrix - first @ second).double().square().sum()
            )
            rows.append(
                row(
                    f"{what}: energy held by {name}",
                    float(energy / best),
                    "x",
                    peer="best approximation",
                )
            )
            if svd is krylov:
                rows.append(
                    row(
                        f"{what}: known to be held by {name}",
                        quality.of_best,
                        "x",
                        peer="best approximation",
                    )
                )
    return rows


def measure(folder: Path, options: argparse.Namespace) -> list[Row]:
    """All tasks in turn, round by round."""
    names = [*MERGERS, LIMIT, *peers(options.peers)]
    results: dict[str, list[Result]] = {name: [] for name in names}
    for turn in range(options.rounds):
        for name in names:
            if not (turn and name in (*PEERS, EXACT)):  # minutes each
                results[name].append(run(name, folder, options.small))
    seconds = {name: [result.value for result in found] for name, found in results.items()}
    seconds[BOUND] = [
        2.0 * average + least
        for average, least in zip(seconds[AVERAGE], seconds[LIMIT], strict=True)
    ]

    def time_of(name: str) -> Row:
        return row(name, statistics.median(seconds[name]), "s")

    rows = [
        time_of(OURS),
        time_of(AVERAGE),
        time_of(LIMIT),
        row(f"r2m / ({BOUND})", ratio(seconds, OURS, BOUND), "x", 1.0, BOUND),
    ]
    if options.lowrank:
        scaled = statistics.median(seconds[OURS]) * run(SAMPLE, folder, options.small).value
        rows.append(row("r2m with torch.svd_lowrank, scaled up from two blocks", scaled, "s"))
    others = [name for name in names if name not in (OURS, AVERAGE, LIMIT)]
    rows += [time_of(name) for name in others]
    rows += [
        row(
            f"{PEERS[name].ours} / {name}",
            seconds[PEERS[name].ours][0] / seconds[name][0],
            "x",
            peer=name,
        )
        for name in others
        if name in PEERS
    ]
    for name in (OURS, AVERAGE, *others):
        peak = max(result.peak for result in results[name])
        if peak:
            rows.append(
                row(f"{name}, peak memory", peak / 1e9, "GB", 2.0 if name == OURS else None)
            )
    return rows + accuracy()


def peers(wanted: bool) -> list[str]:
    """The peers that can be measured, if they are wanted; else says why not."""
    if not wanted:
        return []
    try:
        importlib.import_module(MERGEKIT)
    except ImportError as error:
        print(f"mergekit is left out: it cannot be imported ({error}).")
        return []
    return list(PEERS)


if __name__ == "__main__":
    parser = arguments("Merging: time and peak memory from files to a file")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each merger")
    parser.add_argument(
        "--folder",
        type=Path,
        help="where the files are written, into a folder of their own; the system's temporary one "
        "by default",
    )
    parser.add_argument(
        "--lowrank", action="store_true", help="also estimate r2m with torch.svd_lowrank"
    )
    parser.add_argument(
        "--peers", action="store_true", help="also measure mergekit; its TIES takes minutes"
    )
    parser.add_argument("--small", action="store_true", help="a tiny model, to try the script out")
    parser.add_argument(
        "--task",
        choices=[*MERGERS, *PEERS, LIMIT, SAMPLE],
        help="only print what this task measures on the files in --folder",
    )
    options: Any = parser.parse_args()
    if options.task:
        print(task(options.task, options.folder, options.small))
    else:
        merged = model(options.small)
        name = "a tiny model" if options.small else BACKBONE
        with tempfile.TemporaryDirectory(dir=options.folder) as place:
            prepare(Path(place), merged)
            rows = measure(Path(place), options)
        report(
            f"Merging {EXPERTS} specialists: {name}, {merged.numbers / 1e6:.0f} M parameters, "
            "float32",
            rows,
            options.json,
        )
