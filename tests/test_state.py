"""State dicts on disk: read when asked for, written as they come, whole or not at all."""

import json
import os
import pickle
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fmsd.errors import InputError
from fmsd.state import CODES, StateFile, read_state, tensor_shapes, write_state

State = dict[str, Tensor]
Layout = dict[str, tuple[torch.Size, torch.dtype]]


def numbers(kind: torch.dtype, *shape: int) -> Tensor:
    return torch.randint(0, 2 if kind == torch.bool else 100, shape).to(kind)


def layout(state: State) -> Layout:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()}


def check_equal(found: Tensor, expected: Tensor) -> None:
    """To the bit, so that NaN equals itself and -0.0 does not equal 0.0."""
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert bits(found) == bits(expected)


def bits(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_state(path)
    sentence = str(caught.value)
    assert str(path) in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


# ---- writing


@pytest.mark.parametrize("kind", CODES, ids=str)
def test_what_is_written_is_what_safetensors_reads(kind: torch.dtype, tmp_path: Path) -> None:
    state = {
        "plain": numbers(kind, 3, 5),
        "number": numbers(kind),
        "nothing": numbers(kind, 2, 0, 3),
        "turned": numbers(kind, 4, 3).mT,
        "skipping": numbers(kind, 9)[1::2],
        "stretched": numbers(kind, 1, 3).expand(4, 3),
        "a.name.of \u00e9\u2603": numbers(kind, 1, 2, 1, 2),
        "last": numbers(kind, 0),
    }
    write_state(tmp_path / "a.safetensors", layout(state), reversed(state.items()))
    found, file = load_file(tmp_path / "a.safetensors"), StateFile(tmp_path / "a.safetensors")
    assert set(found) == set(file) == set(state)
    assert tensor_shapes(file) == {name: tensor.shape for name, tensor in state.items()}
    for name, tensor in state.items():
        check_equal(found[name], tensor)
        check_equal(file[name], tensor)


def test_number_formats_lie_in_one_file_in_any_order(tmp_path: Path) -> None:
    state = {
        f"{size} {kind}": numbers(kind, size) for size in (3, 1, 0, 5) for kind in reversed(CODES)
    }
    state["odd"] = torch.tensor([torch.nan, torch.inf, -0.0, 1e-45])
    state["learns"] = torch.randn(3, requires_grad=True)
    for order in (list(state), sorted(state), sorted(state, key=lambda name: name[::-1])):
        write_state(
            tmp_path / "a.safetensors", layout(state), ((name, state[name]) for name in order)
        )
        found = load_file(tmp_path / "a.safetensors")
        assert set(found) == set(state)
        for name, tensor in state.items():
            check_equal(found[name], tensor)
    assert (tmp_path / "a.safetensors").stat().st_size == 8 + struct.unpack(
        "<Q", (tmp_path / "a.safetensors").read_bytes()[:8]
    )[0] + sum(tensor.nbytes for tensor in state.values())


def test_what_comes_is_converted_to_the_layout(tmp_path: Path) -> None:
    come = {
        "half": torch.randn(3, 2),
        "brain": torch.randn(4).double(),
        "single": torch.randn(3).half(),
        "short": torch.arange(4),
        "whole": torch.ones(2),
    }
    kinds = {
        "half": torch.float16,
        "brain": torch.bfloat16,
        "single": torch.float32,
        "short": torch.int32,
        "whole": torch.bool,
    }
    write_state(
        tmp_path / "a.safetensors",
        {name: (tensor.shape, kinds[name]) for name, tensor in come.items()},
        come.items(),
    )
    found = load_file(tmp_path / "a.safetensors")
    for name, tensor in come.items():
        check_equal(found[name], tensor.to(kinds[name]))


def test_a_tensor_is_written_before_the_next_is_asked_for(tmp_path: Path) -> None:
    """A generator may use the same memory again."""
    room = torch.empty(3)

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for number in range(4):
            yield str(number), room.fill_(number)

    write_state(
        tmp_path / "a.safetensors",
        {str(number): (room.shape, room.dtype) for number in range(4)},
        tensors(),
    )
    assert {
        name: tensor.tolist() for name, tensor in load_file(tmp_path / "a.safetensors").items()
    } == {str(n): [n] * 3 for n in range(4)}


def test_no_tensors_make_a_file_too_and_folders_are_made(tmp_path: Path) -> None:
    write_state(tmp_path / "deep" / "a.safetensors", {}, [])
    assert load_file(tmp_path / "deep" / "a.safetensors") == {}
    assert len(StateFile(tmp_path / "deep" / "a.safetensors")) == 0


def test_a_file_can_be_written_from_itself(tmp_path: Path) -> None:
    path, state = tmp_path / "a.safetensors", {"a": torch.randn(5), "b": torch.randn(2, 3)}
    save_file(state, path)
    before = StateFile(path)
    write_state(path, layout(state), ((name, tensor + 1) for name, tensor in before.items()))
    after = StateFile(path)
    for name, tensor in state.items():
        check_equal(before[name], tensor)
        check_equal(after[name], tensor + 1)


def midway(state: State) -> Iterator[tuple[str, Tensor]]:
    yield "a", state["a"]
    raise ZeroDivisionError("midway")


FAULTS = {
    "missing": (lambda state: [("a", state["a"])], ValueError, r"b never came"),
    "none": (lambda state: [], ValueError, r"a never came"),
    "unknown": (
        lambda state: [*state.items(), ("c", torch.zeros(1))],
        ValueError,
        r"c \(1,\) is not awaited",
    ),
    "repeated": (
        lambda state: [*state.items(), ("a", state["a"])],
        ValueError,
        r"a \(5,\) is not awaited \(any more\)",
    ),
    "other shape": (
        lambda state: [("b", torch.zeros(3, 2)), ("a", state["a"])],
        ValueError,
        r"b \(3, 2\) is not awaited",
    ),
    "other number of dimensions": (
        lambda state: [("a", torch.zeros(5, 1)), ("b", state["b"])],
        ValueError,
        r"a \(5, 1\) is not awaited",
    ),
    "midway": (midway, ZeroDivisionError, "midway"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("existing", [False, True], ids=["new", "existing"])
def test_what_does_not_fit_leaves_the_folder_as_it_was(
    existing: bool, fault: str, tmp_path: Path
) -> None:
    state, (tensors, error, words) = {"a": torch.randn(5), "b": torch.randn(2, 3)}, FAULTS[fault]
    path = tmp_path / "a.safetensors"
    if existing:
        path.write_bytes(b"what was there")
    with pytest.raises(error, match=words):
        write_state(path, layout(state), tensors(state))
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == (
        [(path.name, b"what was there")] if existing else []
    )


# ---- reading as it is asked


def test_a_state_file_is_a_mapping(tmp_path: Path) -> None:
    state = {"b": torch.randn(2, 3), "a": torch.tensor(3), "c": torch.empty(0, 4)}
    save_file(state, tmp_path / "a.safetensors")
    file = StateFile(tmp_path / "a.safetensors")
    assert set(file) == set(file.keys()) == set(state)
    assert len(file) == 3
    assert "a" in file
    assert "d" not in file
    assert file.get("d") is None
    with pytest.raises(KeyError, match="d"):
        file["d"]
    for name, tensor in dict(file).items():
        check_equal(tensor, state[name])
    assert (
        tensor_shapes(file)
        == tensor_shapes(state)
        == {"b": torch.Size([2, 3]), "a": torch.Size([]), "c": torch.Size([0, 4])}
    )


def overwrite(path: Path, old: Tensor, new: Tensor) -> None:
    """Puts other numbers in the place of a tensor's in a file."""
    content = path.read_bytes()
    assert content.count(bits(old)) == 1
    with path.open("r+b") as file:
        file.seek(content.index(bits(old)))
        file.write(bits(new))


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_tensor_is_that_of_the_file_when_it_is_looked_at(suffix: str, tmp_path: Path) -> None:
    path, state = tmp_path / f"a.{suffix}", {"one": torch.randn(500), "other": torch.randn(700)}
    (save_file if suffix == "safetensors" else torch.save)(state, path)
    file, other = read_state(path), torch.randn(700)
    overwrite(path, state["other"], other)
    assert torch.equal(file["one"], state["one"])
    assert torch.equal(file["other"], other)


def memory() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="there is no /proc to read the memory in use from"
)
def test_large_tensors_that_are_not_looked_at_take_no_memory(tmp_path: Path) -> None:
    large = 1 << 30
    header = {
        "large": {"dtype": "F32", "shape": [large // 4], "data_offsets": [0, large]},
        "small": {"dtype": "F32", "shape": [2], "data_offsets": [large, large + 8]},
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (tmp_path / "a.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.seek(large, os.SEEK_CUR)  # a hole in the file
        file.write(struct.pack("<2f", 1, 2))
    before = memory()
    state = read_state(tmp_path / "a.safetensors")
    assert tensor_shapes(state) == {"large": torch.Size([large // 4]), "small": torch.Size([2])}
    assert state["small"].tolist() == [1, 2]
    whole = state["large"]
    assert whole[large // 8] == 0
    assert memory() - before < large / 8


# ---- files of others

STATE = {
    "layer.weight": torch.arange(15.0).view(5, 3),
    "layer.bias": torch.arange(5).half(),
    "seen": torch.tensor(3),
    "flags": torch.tensor([True, False]),
}
FILES: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "pth": ("a.pth", STATE, {}),
    "ending": ("a.bin", STATE, {}),
    "state_dict": ("a.pth", {"state_dict": STATE, "epoch": 3}, {}),
    "model": ("a.pth", {"epoch": 3, "model": STATE}, {}),
    "legacy": ("a.pth", STATE, {"_use_new_zipfile_serialization": False}),
    "legacy state_dict": (
        "a.pth",
        {"state_dict": STATE, "epoch": 3},
        {"_use_new_zipfile_serialization": False},
    ),
}


@pytest.mark.parametrize("name", [*FILES, "safetensors"])
def test_every_format_gives_the_same_tensors(name: str, tmp_path: Path) -> None:
    if name == "safetensors":
        path = tmp_path / "a.safetensors"
        save_file(STATE, path)
    else:
        path = tmp_path / FILES[name][0]
        torch.save(FILES[name][1], path, **FILES[name][2])
    found = read_state(path)
    assert set(found) == set(STATE)
    assert tensor_shapes(found) == tensor_shapes(STATE)
    for key, tensor in STATE.items():
        check_equal(found[key], tensor)


FOREIGN = {
    "text": b"hello world",
    "page": b"<!DOCTYPE html>\n<title>404</title>\n",
    "pointer": b"version https://git-lfs.github.com/spec/v1\n",
    "zeros": bytes(5000),
}


class Harm:
    """Runs code of its own where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("kind", ["bare", "zip", "legacy"])
def test_nothing_but_tensors_is_unpickled(kind: str, tmp_path: Path) -> None:
    state = {"weight": torch.zeros(3), "harm": Harm(tmp_path / "harmed")}
    if kind == "bare":
        (tmp_path / "harm.pth").write_bytes(pickle.dumps(state))
    else:
        torch.save(state, tmp_path / "harm.pth", _use_new_zipfile_serialization=kind == "zip")
    assert "harm.pth cannot be read" in refusal(tmp_path / "harm.pth")
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_a_file_that_is_cut_short_is_refused(kind: str, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    if kind == "safetensors":
        save_file(STATE, whole)
    else:
        torch.save(STATE, whole, _use_new_zipfile_serialization=kind == "zip")
    content = whole.read_bytes()
    for length in range(0, len(content), 1 + len(content) // 100):
        part = tmp_path / f"{length}.{'safetensors' if kind == 'safetensors' else 'pth'}"
        part.write_bytes(content[:length])
        assert "cannot be read" in refusal(part)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_something_else_is_refused(name: str, suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"a.{suffix}").write_bytes(FOREIGN[name])
    assert "cannot be read" in refusal(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        torch.zeros(3),
        {"epoch": 3},
        {"state_dict": {"epoch": 3}},
        {"weight": torch.zeros(3), "epoch": 3},
    ],
)
def test_a_file_of_no_state_dict_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pth")
    assert "holds no state dict; save model.state_dict() instead" in refusal(tmp_path / "a.pth")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.pth").mkdir()
    for name in ("none.pth", "none.safetensors", "folder.pth"):
        assert "There is no weights file" in refusal(tmp_path / name)
