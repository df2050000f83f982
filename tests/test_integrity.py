"""Files that are not what was written: noticed before anything is made of them."""

import zipfile
from pathlib import Path

import pytest
import torch
import yaml

from fmsd import tensor_cache
from fmsd.engine.checkpoints import (
    BEST,
    LAST,
    PREVIOUS,
    Best,
    newest_checkpoint,
    read_checkpoint,
)
from fmsd.engine.model_selection import MONITOR
from fmsd.errors import InputError
from fmsd.peft import svd_cache
from fmsd.runs.configuration import weights_digest

CONFIG = {
    "seed": 0,
    "method": {"_target_": "fmsd.peft.lora.lora", "rank": 4},
    "backbone": {"name": "vit", "weights": "/a/b.safetensors"},
    "data": {"root": "/data", "workers": 4, "batch_size": 8},
    "overrides": ["method=lora"],
}


def write_checkpoint(path: Path, **digests: str) -> Path:
    """A checkpoint with some weights and the digests of its inputs."""
    state = {"weight": torch.arange(4096, dtype=torch.float32)}
    content = {"state_dict": state, "callbacks": {"Recovery": {"step": 3, "basis": digests}}}
    torch.save(content, path)
    return path


def flip(path: Path, place: int) -> None:
    """Flips one bit of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def weights_place(path: Path) -> int:
    """A place inside the weights of a checkpoint."""
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    return largest.header_offset + 2000


def test_a_flipped_bit_of_a_checkpoint_is_noticed_and_the_one_before_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    last, previous = (write_checkpoint(tmp_path / name) for name in (LAST, PREVIOUS))
    assert newest_checkpoint(tmp_path) == last
    flip(last, weights_place(last))
    with pytest.raises(InputError, match=r"last\.ckpt is damaged: its part \S+data/0 is not what"):
        read_checkpoint(last)
    assert newest_checkpoint(tmp_path) == previous
    assert "going on from previous.ckpt" in caplog.text


@pytest.mark.parametrize("place", range(0, 16000, 1777))
def test_wherever_a_bit_is_flipped_the_weights_are_right_or_refused(
    place: int, tmp_path: Path
) -> None:
    path = write_checkpoint(tmp_path / LAST)
    weights = read_checkpoint(path)["state_dict"]["weight"]
    flip(path, place)
    try:
        found = read_checkpoint(path)["state_dict"]["weight"]
    except InputError:
        return
    assert torch.equal(found, weights)  # a byte of padding


@pytest.mark.parametrize("damage", ["missing", "flipped", "cut"])
def test_a_best_checkpoint_that_is_not_good_is_named_before_training_goes_on(
    damage: str, tmp_path: Path
) -> None:
    best = Best(tmp_path, MONITOR)
    file = write_checkpoint(tmp_path / BEST)
    state = best.state_dict() | {"best_model_score": torch.tensor(0.7)}
    best.load_state_dict(state)
    if damage == "missing":
        file.unlink()
    elif damage == "flipped":
        flip(file, weights_place(file))
    else:
        file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(InputError, match=rf"{BEST}.*(is missing|damaged|cannot be read)"):
        best.load_state_dict(state)
    best.load_state_dict(state | {"best_model_score": None})  # no epoch was validated yet


def test_a_checkpoint_of_another_training_is_not_resumed_from(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_checkpoint(tmp_path / LAST, settings="b", frames="x")
    previous = write_checkpoint(tmp_path / PREVIOUS, settings="a", frames="x")
    assert newest_checkpoint(tmp_path, {"settings": "a", "frames": "x"}) == previous
    assert "The settings of this run are not those that" in caplog.text
    with pytest.raises(
        InputError, match=r"The frames of this run are not those that \S+last\.ckpt"
    ):
        newest_checkpoint(tmp_path, {"frames": "y"})


def test_a_checkpoint_without_a_digest_is_said_to_lack_it(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / LAST, frames="x")
    with pytest.raises(InputError, match=r"last\.ckpt has no digest of the settings that") as one:
        newest_checkpoint(tmp_path, {"settings": "a", "frames": "x"})
    assert "are not those" not in one.value.message
    with pytest.raises(InputError, match="The frames of this run are not those that"):
        newest_checkpoint(tmp_path, {"settings": "a", "frames": "y"})


def test_the_digest_of_settings_covers_what_determines_the_weights() -> None:
    def digest(**changes: object) -> str:
        return weights_digest(yaml.safe_dump(CONFIG | changes))

    same = (
        {"overrides": ["seed=0"]},
        {"backbone": {"name": "vit", "weights": "/moved/b.safetensors"}},
        {"data": {"root": "/moved", "workers": 0, "batch_size": 8}},
    )
    assert {digest(**change) for change in same} == {digest()}
    others = (
        {"seed": 1},
        {"method": {"_target_": "fmsd.peft.lora.lora", "rank": 8}},
        {"data": {"root": "/data", "workers": 4, "batch_size": 16}},
        {"data": {"root": "/data", "workers": 4, "batch_size": 8, "augment": "strong"}},
        {"backbone": {"name": "resnet", "weights": "/a/b.safetensors"}},
    )
    assert len({digest(), *(digest(**change) for change in others)}) == len(others) + 1


@pytest.mark.parametrize("damage", ["flip", "NaN", "without checksum"])
def test_damaged_directions_in_the_cache_are_computed_again(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FMSD_CACHE", str(tmp_path))
    weight = torch.randn(300, 280)
    right = svd_cache.cached_directions(weight, 4)
    (path,) = (tmp_path / "directions").iterdir()
    if damage == "flip":
        flip(path, path.stat().st_size - 1000)
    else:
        from safetensors.torch import load_file, save_file

        tensors = load_file(path)
        if damage == "NaN":
            tensors["u"].fill_(torch.nan)
        else:
            del tensors[tensor_cache.CHECKSUM]
        save_file(tensors, path)
    again = svd_cache.cached_directions(weight, 4)
    assert all(torch.equal(one, other) for one, other in zip(right, again, strict=True))
    assert "it is computed again" in caplog.text
    caplog.clear()
    svd_cache.cached_directions(weight, 4)
    assert not caplog.text
