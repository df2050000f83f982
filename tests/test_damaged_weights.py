"""Weights, checkpoints and curves that are damaged: told truly, and before they cost anything."""

import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from fmsd.engine.checkpoints import BEST, LAST, PREVIOUS, newest_checkpoint
from fmsd.engine.chosen_weights import load_chosen
from fmsd.engine.curve_log import curve_logger
from fmsd.engine.learner import Learner
from fmsd.errors import InputError
from fmsd.models.detector import load_weights
from fmsd.peft import adapter
from fmsd.peft.experts import open_experts
from fmsd.peft.lora import lora
from fmsd.state import check_finite, read_state
from tests.conftest import tiny_vit

BAD = [torch.nan, torch.inf, -torch.inf]


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", BAD)
def test_a_value_that_is_not_finite_is_found_wherever_it_is(
    value: float, kind: torch.dtype
) -> None:
    weight = torch.randn(3, 50, dtype=kind)
    check_finite([("a", weight), ("b", torch.arange(3))], "here")
    for place in (0, 77, 149):
        damaged = weight.clone()
        damaged.view(-1)[place] = value
        with pytest.raises(InputError, match=r"here hold NaN or infinity in b \(1 of 150 values\)"):
            check_finite([("a", weight), ("b", damaged)], "here")


def test_finite_values_pass_though_they_add_up_to_infinity() -> None:
    for kind in (torch.float32, torch.float16, torch.bfloat16):
        check_finite([("a", torch.full((100_000,), torch.finfo(kind).max, dtype=kind))], "here")
    check_finite([("a", torch.ones(8).to(torch.float8_e4m3fn)), ("b", torch.empty(0))], "here")


def spoil(path: Path, value: float) -> str:
    """Puts a value into the last tensor of a safetensors file; returns its name."""
    tensors = load_file(path)
    name = max(tensors)
    tensors[name].view(-1)[-1] = value
    save_file(tensors, path)
    return name


@pytest.mark.parametrize("value", BAD)
def test_weights_that_are_not_finite_are_refused_when_they_are_loaded(
    value: float, tmp_path: Path
) -> None:
    base = tiny_vit()
    whole = {name: tensor.contiguous() for name, tensor in base.backbone.state_dict().items()}
    for file in ("base", "expert"):
        save_file(whole, tmp_path / f"{file}.safetensors")
    fingerprint = adapter.fingerprint(base)
    model = tiny_vit()
    model.load_state_dict(base.state_dict())
    lora(model, patterns=["attention"], rank=2, alpha=4.0)
    adapter.save(model, tmp_path / "run", {"name": "vit", "hash": fingerprint}, {})
    shutil.copytree(tmp_path / "run", tmp_path / "other")

    def experts() -> None:
        paths = [tmp_path / "expert.safetensors", tmp_path / "run"]
        open_experts(paths, whole, fingerprint, base)

    experts()
    loads: dict[str, Callable[[], object]] = {
        "base.safetensors": lambda: load_weights(
            tiny_vit().backbone, tmp_path / "base.safetensors"
        ),
        "expert.safetensors": experts,
        "other/adapter.safetensors": lambda: adapter.read(tmp_path / "other", fingerprint),
    }
    for file, load in loads.items():
        load()
        name = spoil(tmp_path / file, value)
        with pytest.raises(
            InputError, match=rf"{file} hold NaN or infinity in {name} \(1 of .* values\); give"
        ):
            load()


def test_keys_that_are_no_names_are_no_state_dict(tmp_path: Path) -> None:
    torch.save({0: torch.zeros(3), "a": torch.zeros(3)}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"a\.pth holds no state dict"):
        read_state(tmp_path / "a.pth")


def write_checkpoint(path: Path) -> Path:
    torch.save({"state_dict": {}, "callbacks": {"Recovery": {"step": 2, "basis": {}}}}, path)
    return path


@pytest.mark.parametrize("name", [BEST, LAST, PREVIOUS])
def test_a_folder_in_place_of_a_checkpoint_is_named_as_one(name: str, tmp_path: Path) -> None:
    for other in {LAST, PREVIOUS} - {name}:
        write_checkpoint(tmp_path / other)
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=rf"{name} is a folder, where a checkpoint is wanted"):
        newest_checkpoint(tmp_path)


def test_a_best_checkpoint_that_is_gone_is_not_taken_for_one_that_never_was(
    tmp_path: Path,
) -> None:
    learner = object.__new__(Learner)  # nothing is loaded into it
    with pytest.raises(InputError, match=r"best\.ckpt, with the weights that .*, is missing; put"):
        load_chosen(learner, tmp_path / BEST, validated=True)
    with pytest.raises(InputError, match=r"before the first validation.*raise trainer\.max_steps"):
        load_chosen(learner, tmp_path / BEST, validated=False)
    whole = write_checkpoint(tmp_path / BEST).read_bytes()
    (tmp_path / BEST).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"best\.ckpt cannot be read: it is cut short"):
        load_chosen(learner, tmp_path / BEST, validated=True)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\x00garbage",
        b"epoch,loss\n0,1.0\n",
        b"step,loss\nfirst,1.0\n",
        b"version https://git-lfs.github.com/spec/v1\n",
    ],
)
def test_curves_that_cannot_be_read_begin_anew_and_are_kept(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    last, file = write_checkpoint(tmp_path / LAST), tmp_path / "logs" / "metrics.csv"
    file.parent.mkdir()
    for number in ("", "1"):
        file.write_bytes(content)
        logger = curve_logger(tmp_path, last)
        assert "metrics.csv cannot be read" in caplog.text
        assert file.with_name(f"metrics.csv.damaged{number}").read_bytes() == content
        logger.log_metrics({"loss": 1.0}, 3)
        logger.save()
        assert pl.read_csv(file)["step"].to_list() == [3]


def test_a_folder_in_place_of_the_curves_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "logs" / "metrics.csv" / "inside").mkdir(parents=True)
    logger = curve_logger(tmp_path, write_checkpoint(tmp_path / LAST))
    logger.log_metrics({"loss": 1.0}, 3)
    logger.save()
    assert (tmp_path / "logs" / "metrics.csv.damaged" / "inside").is_dir()
    assert pl.read_csv(tmp_path / "logs" / "metrics.csv")["step"].to_list() == [3]
