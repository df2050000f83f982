"""A file that is no weights is named as what it is, with a remedy that fits."""

import argparse
import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from fmsd.engine.checkpoints import newest_checkpoint, read_checkpoint
from fmsd.errors import InputError
from fmsd.magic_numbers import recognise
from fmsd.state import read_state

STATE = {"layer.weight": torch.arange(12.0).view(4, 3), "layer.bias": torch.arange(4.0)}


UNPICKLE = "save its state_dict as safetensors"


def torch_bytes(content: object, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def archive(kind: str) -> bytes:
    file = io.BytesIO()
    if kind == "tar":
        with tarfile.open(fileobj=file, mode="w") as tar:
            tar.addfile(tarfile.TarInfo("weights/a.bin"))
    else:
        with zipfile.ZipFile(file, "w") as zipped:
            zipped.writestr("weights/model.safetensors", save(STATE))
    return file.getvalue()


def script() -> bytes:
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 1)), file)  # pyright: ignore[reportPrivateImportUsage]
    return file.getvalue()


WHOLE, ZIPPED = save(STATE), torch_bytes(STATE)
CONTENTS: dict[str, tuple[bytes, str, str]] = {
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 12345\n",
        "is a Git LFS pointer",
        "git lfs pull",
    ),
    "page": (
        b"\n<!DOCTYPE html>\n<html><title>404</title></html>",
        "is a web page",
        "not its page",
    ),
    "quota": (b"<html>Quota exceeded</html>", "is a web page", "quota"),
    "xhtml": (
        b'\xef\xbb\xbf<?xml version="1.0"?><html xmlns="x"></html>',
        "is a web page",
        "not its page",
    ),
    "refusal": (
        b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        "is an XML text",
        "read in it why",
    ),
    "json": (b'{"error": "Repository not found"}', "is a JSON text", "read in it why"),
    "json list": (b'[{"error": 1}]', "is a JSON text", "read in it why"),
    "empty": (b"", "is empty (0 bytes)", "download it again"),
    "zip": (archive("zip"), "is a zip archive that torch did not write", "unpack it"),
    "tar": (archive("tar"), "is a tar archive", "unpack it"),
    "gzip": (gzip.compress(WHOLE), "is compressed with gzip", "unpack it"),
    "onnx": (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\x85\x01", "is an ONNX graph", "exported from"),
    "keras": (b"\x89HDF\r\n\x1a\n" + bytes(40), "is an HDF5 file", "PyTorch"),
    "script": (script(), "is a TorchScript program", "torch.jit.load"),
    "half of safetensors": (
        WHOLE[:-5],
        f"is cut short: it has {len(WHOLE) - 5:,} of at least {len(WHOLE):,} bytes",
        "download it again",
    ),
    "half a header": (WHOLE[:50], "is cut short: it has 50 of", "download it again"),
    "half of torch's": (ZIPPED[: len(ZIPPED) // 2], "is cut short", "download it again"),
    "objects": (
        torch_bytes({"model": STATE, "args": argparse.Namespace(rate=1)}),
        "(argparse.Namespace)",
        UNPICKLE,
    ),
    "old objects": (
        torch_bytes({"args": argparse.Namespace(rate=1)}, zipped=False),
        "other objects than tensors",
        "save its state_dict as safetensors",
    ),
}


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        act()
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert "weights_only" not in sentence
    return sentence


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("name", CONTENTS)
def test_weights_that_are_something_else_are_named(name: str, suffix: str, tmp_path: Path) -> None:
    content, what, remedy = CONTENTS[name]
    path = tmp_path / f"model.{suffix}"
    path.write_bytes(content)
    said = refusal(lambda: read_state(path))
    assert said.startswith(f"The weights file {path} cannot be read: it ")
    assert what in said.partition("; ")[0]
    assert remedy in said.partition("; ")[2]


def test_noise_is_not_taken_for_anything(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(bytes(range(200, 256)) * 20)
    assert recognise(tmp_path / "a.pth") is None
    assert "is no file of torch, is damaged" in refusal(lambda: read_state(tmp_path / "a.pth"))
    (tmp_path / "a.safetensors").write_bytes(bytes(range(200, 256)) * 20)
    assert "is no file of torch, is damaged" in refusal(
        lambda: read_state(tmp_path / "a.safetensors")
    )


def test_a_whole_file_is_not_taken_for_a_broken_one(tmp_path: Path) -> None:
    for name, content in (
        ("a.safetensors", WHOLE),
        ("a.pth", ZIPPED),
        ("old.pth", torch_bytes(STATE, zipped=False)),
    ):
        (tmp_path / name).write_bytes(content)
        assert recognise(tmp_path / name) is None


def test_the_content_counts_not_the_ending(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(WHOLE)
    (tmp_path / "b.safetensors").write_bytes(ZIPPED)
    for name in ("a.bin", "b.safetensors"):
        found = read_state(tmp_path / name)
        assert set(found) == set(STATE)
        assert all(torch.equal(found[key], STATE[key]) for key in STATE)


def test_a_checkpoint_that_cannot_be_read_is_named_without_torchs_advice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save({"args": argparse.Namespace(rate=1)}, tmp_path / "last.ckpt")
    torch.save(
        {"state_dict": {}, "callbacks": {"Recovery": {"step": 3}}}, tmp_path / "previous.ckpt"
    )
    assert "it holds other objects than tensors (argparse.Namespace)" in refusal(
        lambda: read_checkpoint(tmp_path / "last.ckpt")
    )
    assert newest_checkpoint(tmp_path) == tmp_path / "previous.ckpt"
    assert "last.ckpt cannot be read: it holds other objects than tensors" in caplog.text
    assert "weights_only" not in caplog.text
    for content in (
        {"step": 3},
        {"state_dict": {}, "callbacks": {}},
        [1],
    ):  # a file that torch reads, but of another program
        torch.save(content, tmp_path / "last.ckpt")
        assert newest_checkpoint(tmp_path) == tmp_path / "previous.ckpt"
    (tmp_path / "previous.ckpt").write_bytes(ZIPPED[:-40])
    assert f"No checkpoint in {tmp_path} can be read" in refusal(
        lambda: newest_checkpoint(tmp_path)
    )
    assert "previous.ckpt cannot be read: it is cut short" in caplog.text


def test_a_header_that_lies_is_not_followed(tmp_path: Path) -> None:
    """A length far beyond the file, or offsets that are no numbers."""
    for text in (
        b'{"a": 3}',
        b'{"a": {"data_offsets": ["x", "y"]}}',
        b"[" * 5000,
        b'{"a": {"data_offsets": []}}',
        b"{}}",
    ):
        path = tmp_path / "a.safetensors"
        path.write_bytes(len(text).to_bytes(8, "little") + text)
        refusal(lambda path=path: read_state(path))
    path.write_bytes(b"\xff" * 8 + b"{")
    refusal(lambda: read_state(path))
    save_file({}, path)
    assert dict(read_state(path)) == {}
