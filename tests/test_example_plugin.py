"""The example of a plugin: its method, dataset and wrapper, and a run of them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from fmsd.data.frame import Problem, Video
from fmsd.errors import InputError
from fmsd.optim.erm import ERM
from fmsd.optim.sam import SAM
from fmsd.peft import adapter
from fmsd.peft.inject import fold_layers
from tests.conftest import fmsd_command, tiny_vit, write_image
from tests.installed import EXAMPLE
from tests.surroundings import python_path


def write_clips(root: Path) -> Path:
    """A copy of the example's dataset."""
    rows: list[dict[str, str]] = []
    for number in range(4):
        clip, fake = f"clip{number}", number % 2
        rows.append(
            {"clip": clip} | ({"label": "fake", "generator": "veo"} if fake else {"label": "real"})
        )
        for frame in range(2):
            write_image(root / "frames" / clip / f"{frame}.png", 10 * number + frame)
    (root / "clips.json").write_text(json.dumps(rows))
    return root


@pytest.mark.slow
def test_a_run_of_a_plugin_is_trained_tested_explained_folded_and_merged(
    example: Path, tmp_path: Path
) -> None:
    clips = write_clips(tmp_path / "clips")
    both = {"PYTHONPATH": python_path(example)}
    training = [
        "train",
        "method=ia3",
        "wrapper=gradient_norm",
        "data=synthetic",
        "trainer=smoke",
        "data.test=[synthetic,clips]",
        f"data.roots.clips={clips}",
    ]
    for seed in (0, 1):
        done = fmsd_command(
            *training, f"seed={seed}", f"hydra.run.dir=run{seed}", cwd=tmp_path, **both
        )
        assert done.returncode == 0, done.stderr
        assert "clips" in done.stdout
    run = tmp_path / "run0"
    record = json.loads((run / "run.json").read_text())
    assert record["versions"]["fmsd-example"] == "0.1.0"
    layers = json.loads((run / "adapter.json").read_text())["layers"]
    assert {layer["kind"] for layer in layers.values()} == {"ia3"}
    for command in (
        ["evaluate", "run=run0", "data=clips", f"data.root={clips}"],
        ["explain", "run=run0", "images=1"],
        ["fold", "run=run0", "out=folded.safetensors"],
        ["merge", "merger=average", "experts=[run0,run1]", "out=merged"],
    ):
        done = fmsd_command(*command, cwd=tmp_path, **both)
        assert done.returncode == 0, (command, done.stderr)
    without = fmsd_command("fold", "run=run0", "out=other.safetensors", cwd=tmp_path)
    assert without.returncode == 2
    assert re.search(r"call fmsd_example\.\S+ for .+, which neither fmsd nor", without.stderr)
    assert "trust='[fmsd_example.]'" in without.stderr
    assert not (tmp_path / "other.safetensors").exists()


@pytest.mark.usefixtures("installed")
def test_the_layer_of_the_example_starts_as_the_plain_one_and_folds() -> None:
    from fmsd_example.ia3 import ia3  # pyright: ignore[reportMissingImports]

    detector, image = tiny_vit(), torch.rand(2, 3, 32, 32)
    before = detector(image)
    ia3(detector, patterns=["attention"])
    torch.testing.assert_close(detector(image), before)
    trained = [name for name, part in detector.backbone.named_parameters() if part.requires_grad]
    assert {name.rpartition(".")[2] for name in trained if "attn" in name} == {"scale"}
    detector(image).sum().backward()
    for name, part in detector.backbone.named_parameters():
        if name.endswith("scale"):
            assert part.grad is not None
            assert part.grad.abs().sum() > 0
            part.data.add_(torch.randn_like(part), alpha=0.1)
    changed = detector(image)
    fold_layers(detector.backbone)
    torch.testing.assert_close(detector(image), changed)


@pytest.mark.usefixtures("installed")
def test_an_adapter_with_the_layer_of_the_example_is_loaded_again(tmp_path: Path) -> None:
    from fmsd_example.ia3 import ia3  # pyright: ignore[reportMissingImports]

    plain = {name: value.clone() for name, value in tiny_vit().state_dict().items()}
    detectors = [tiny_vit(), tiny_vit()]
    for detector in detectors:
        detector.load_state_dict(plain)
    base = {"name": "tiny", "hash": adapter.fingerprint(detectors[0])}
    ia3(detectors[0], patterns=["attention"])
    with torch.no_grad():
        for part in detectors[0].parameters():
            if part.requires_grad:
                part.add_(0.1)
    adapter.save(detectors[0], tmp_path, base, {})
    adapter.load(detectors[1], tmp_path)
    image = torch.rand(2, 3, 32, 32)
    assert torch.equal(detectors[0](image), detectors[1](image))


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("weight", "like"), [(0.0, ERM()), (0.05, SAM(rho=0.05))])
def test_the_wrapper_of_the_example_contains_erm_and_sam(weight: float, like: Any) -> None:
    from fmsd_example.gradient_norm import GradientNorm  # pyright: ignore[reportMissingImports]

    detector, image = tiny_vit(), torch.rand(4, 3, 32, 32)
    params = list(detector.parameters())
    head = list(detector.head().parameters())

    def run() -> torch.Tensor:
        loss = detector(image).square().mean()
        loss.backward()
        return loss.detach()

    directions = []
    for wrapper in (GradientNorm(rho=0.05, weight=weight), like):
        wrapper(params, [run], head=head)
        directions.append([part.grad.clone() for part in params if part.grad is not None])
    torch.testing.assert_close(*directions)


@pytest.mark.usefixtures("installed")
def test_the_dataset_of_the_example_is_read_and_checked(tmp_path: Path) -> None:
    from fmsd_example.clips import scan  # pyright: ignore[reportMissingImports]

    root = write_clips(tmp_path)
    videos = list(scan(root, "clips"))
    assert [(video.label, video.domain) for video in videos if isinstance(video, Video)] == [
        (0, "real"), (1, "veo"), (0, "real"), (1, "veo"),
    ]  # fmt: skip
    rows = json.loads((root / "clips.json").read_text())
    for changed, sentence in (
        ([{"clip": "../x", "label": "real"}], "'../x'"),
        ([{"clip": "a", "label": "maybe"}], "'maybe'"),
        ([rows[0], rows[0]], "twice"),
        ([{"clip": "a", "label": "fake"}], "generator"),
    ):
        (root / "clips.json").write_text(json.dumps(changed))
        with pytest.raises(InputError, match=re.escape(sentence)):
            list(scan(root, "clips"))
    (root / "clips.json").write_text(json.dumps([{"clip": "gone", "label": "real"}]))
    (problem,) = scan(root, "clips")
    assert isinstance(problem, Problem)


def test_the_readme_of_the_example_names_its_files() -> None:
    text = (EXAMPLE / "README.md").read_text()
    for path in re.findall(r"`(fmsd_example/\w+\.py)`", text):
        assert (EXAMPLE / path).is_file()
