"""Shared fixtures. Shapes in annotations are checked while the tests run."""

import functools
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxtyping import install_import_hook

import tests.typechecker  # noqa: F401  the hook looks it up by name
from tests.surroundings import hide_plugins, hide_variables, python_path

hide_variables()
hide_plugins()
os.environ["OMP_NUM_THREADS"] = "1"
"""Threads of torch, here and in the processes that tests start: the models are tiny, and the tests
run side by side, so that more would wait for each other.
"""

FUZZING = "FMSD_FUZZ" in os.environ
"""Whether the fuzzer runs: it meets the package as users do, whose calls are not checked."""

collect_ignore = [] if FUZZING else ["fuzz"]

install_import_hook(
    []
    if FUZZING
    else [
        "fmsd.data",
        "fmsd.engine",
        "fmsd.linalg",
        "fmsd.peft.mask",
        "fmsd.merge",
        "fmsd.metrics",
        "fmsd.models",
        "fmsd.optim",
        "fmsd.peft",
    ],
    "tests.typechecker.checked",
)

import subprocess  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

import fmsd  # noqa: E402
from fmsd.models.detector import Detector, detector  # noqa: E402
from fmsd.peft.adaptformer import adaptformer  # noqa: E402
from fmsd.peft.fmsd import fmsd as fmsd_method  # noqa: E402
from fmsd.peft.full import full  # noqa: E402
from fmsd.peft.lora import lora  # noqa: E402
from fmsd.peft.masm import masm  # noqa: E402
from fmsd.peft.method import Adaptation, Method  # noqa: E402
from fmsd.peft.moe_lora import moe_lora  # noqa: E402
from fmsd.peft.svf import svf  # noqa: E402
from fmsd.peft.vpt import vpt  # noqa: E402

ROOT = Path(fmsd.__file__).parents[1]

SPLITS = {"train": "train", "val": "val", "valid": "val", "test": "test"}
"""Names of split folders, and their splits."""

SUBSPACES: dict[str, Any] = {
    "patterns": ["attention"],
    "subspaces": 2,
    "directions": 1,
    "penalties": {"orthogonality": 1.0},
}
METHODS: dict[str, Method] = {
    "fmsd": functools.partial(fmsd_method, **SUBSPACES),
    "masm": functools.partial(masm, every=2, momentum=0.9, fraction=0.5, **SUBSPACES),
    "lora": functools.partial(lora, patterns=["attention"], rank=2, alpha=4.0, dropout=0.3),
    "svf": functools.partial(svf, patterns=["attention"]),
    "full": full,
}
"""Methods that differ in what a training step has to do."""

UNFOLDABLE: dict[str, Method] = {
    "adapter": functools.partial(adaptformer, bottleneck=16, scale=0.5, dropout=0.1),
    "vpt": functools.partial(vpt, tokens=3, dropout=0.1),
    "moe_lora": functools.partial(
        moe_lora, patterns=["attention", "!*.proj"], ranks=[1, 2, 4], top=1
    ),
}
"""Methods whose adapted backbone is no plain one. They draw random numbers in training."""


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _log_level() -> None:
    """A command that an earlier test ran in this process has set another level."""
    logging.getLogger("fmsd").setLevel(logging.NOTSET)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip(
        "playwright.sync_api",
        reason="playwright is not installed: no page is tested in a browser",
    )
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        pytest.skip(
            "There is no Chromium (CHROMIUM=PATH, or one in PATH): no page is tested in a browser"
        )
    quiet = ("quic", "gpu", "background-networking", "component-update", "sync")
    arguments = ["--no-sandbox", "--no-first-run", *(f"--disable-{what}" for what in quiet)]
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield started
        started.close()


@pytest.fixture
def tiny() -> Detector:
    """A ViT of two blocks with fused q, k, v."""
    return tiny_vit()


def tiny_vit(**changes: object) -> Detector:
    return detector(
        "vit_tiny_patch16_224",
        size=32,
        **(
            {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2} | changes
        ),
    )


def step(
    model: Detector,
    adaptation: Adaptation,
    optimizer: torch.optim.Optimizer,
    image: torch.Tensor,
    label: torch.Tensor,
) -> float:
    """A training step as `fmsd.engine.learner.Learner` makes it, without Lightning; returns the
    loss.
    """
    loss = torch.nn.functional.binary_cross_entropy_with_logits(model(image), label)
    loss.backward()
    if adaptation.rule:
        adaptation.rule.observe()
    penalties = [weight * penalty(model) for weight, penalty in adaptation.penalties.values()]
    for penalty in penalties:
        penalty.backward()
    if adaptation.rule:
        adaptation.rule.before_step()
    optimizer.step()
    optimizer.zero_grad()
    return float(loss + sum(penalties))


def write_image(path: Path, seed: int, size: int = 32) -> Path:
    """A JPEG or PNG of noise whose mean tells its seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)).save(path)
    return path


def grow_tree(
    root: Path,
    splits: tuple[str, ...] = ("train", "val", "test"),
    domains: tuple[str, ...] = ("real", "swap"),
    videos: int = 2,
    seed: int = 0,
) -> Path:
    """`root/SPLIT/DOMAIN/VIDEO/0.png`, two frames a video; video folders have the same names in
    every domain.

    Args:
        seed: of the first image; the next ones have the next seeds.
    """
    for split in splits:
        for domain in domains:
            for video in range(videos):
                for frame in range(2):
                    write_image(root / split / domain / f"{split}{video}" / f"{frame}.png", seed)
                    seed += 1
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return grow_tree(tmp_path / "tree")


def fmsd_command(
    *arguments: str, cwd: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs `fmsd ARGUMENTS` as a user would, in a folder of its own."""
    command = [
        sys.executable,
        "-c",
        "import sys; from fmsd.cli.main import main; sys.exit(main())",
        *arguments,
    ]
    variables = {**os.environ, "PYTHONPATH": python_path(), **environment}
    return subprocess.run(
        command, cwd=cwd, env=variables, capture_output=True, text=True, check=False, timeout=600
    )


def fmsd_here(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs what `fmsd_command` runs, but in this process, which has imported torch already.

    For commands that need no process of their own: one takes as long to begin as a small training.
    """
    from tests.fuzz.running import run

    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        code, out, err = run(arguments, cwd)
    return subprocess.CompletedProcess(arguments, code, out, err)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real faces and weights, where the environment says they are."""
    place = os.environ.get("FMSD_TEST_DATA")
    if not place:
        pytest.skip("FMSD_TEST_DATA is not set: no real faces and weights at hand")
    return Path(place)


@pytest.fixture(scope="session")
def specialists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three specialists of one backbone in `runs/METHOD`, by three methods, and their data."""
    from tests.specialists import train_specialists

    folder = tmp_path_factory.mktemp("merge")
    train_specialists(folder)
    return folder


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that pip installed the example of a plugin into."""
    from tests.installed import install_example

    return install_example(tmp_path_factory.mktemp("site-packages"))


@pytest.fixture
def installed(example: Path) -> Iterator[None]:
    """The example of a plugin is installed."""
    from tests.installed import on_path

    with on_path(example):
        yield
