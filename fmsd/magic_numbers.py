"""Recognises by its first bytes why a file that should hold weights or pictures cannot be read."""

import codecs
import json
import struct
import zipfile
from pathlib import Path
from typing import NamedTuple

HEAD = 4096
"""Number of first bytes that are inspected."""

AGAIN = "download it again"


class Fault(NamedTuple):
    """Why a file cannot be read.

    Args:
        what: a clause whose subject is the file: "is empty".
        remedy: what to do about it, a clause in lower case.
    """

    what: str
    remedy: str

    def remedy_or(self, other: str) -> str:
        """Its remedy, or another one in place of a mere `AGAIN`."""
        return other if self.remedy == AGAIN else self.remedy


POINTER = Fault(
    "is a Git LFS pointer, a few lines of text that stand for the file",
    "run `git lfs pull` in the repository it came from, or download the file itself",
)
PAGE = Fault(
    "is a web page",
    "download the file itself, not its page, and look at the page in a browser where it reports "
    "an error, such as a quota or a login",
)
ANSWER = Fault(
    "is an XML text, as servers send in place of a file that they refuse",
    "read in it why, and download the file again once that is settled",
)
JSON = Fault(
    "is a JSON text, as servers send in place of a file that they refuse",
    "read in it why, and download the file again once that is settled",
)
ONNX = Fault(
    "is an ONNX graph, whose tensors have other names than the network's",
    "give the checkpoint that it was exported from",
)
TEXT = Fault("is a text", "leave it out, or copy it again from its source")
ARCHIVE = "unpack it and give the file of weights inside"
MAGIC_NUMBERS: tuple[tuple[int, bytes, Fault], ...] = (
    (0, b"version https://git-lfs.github.com/", POINTER),
    (0, b"\x1f\x8b", Fault("is compressed with gzip", ARCHIVE)),
    (0, b"BZh", Fault("is compressed with bzip2", ARCHIVE)),
    (0, b"\xfd7zXZ\x00", Fault("is compressed with xz", ARCHIVE)),
    (0, b"\x28\xb5\x2f\xfd", Fault("is compressed with Zstandard", ARCHIVE)),
    (0, b"7z\xbc\xaf\x27\x1c", Fault("is a 7-Zip archive", ARCHIVE)),
    (0, b"Rar!\x1a\x07", Fault("is a RAR archive", ARCHIVE)),
    (257, b"ustar", Fault("is a tar archive", ARCHIVE)),
    (
        0,
        b"\x89HDF\r\n\x1a\n",
        Fault("is an HDF5 file, as Keras writes", "give weights that were saved with PyTorch"),
    ),
    (0, b"\x93NUMPY", Fault("is a NumPy array", "give weights that were saved with PyTorch")),
    (
        0,
        b"GGUF",
        Fault(
            "is a GGUF file, which holds quantised weights",
            "give the weights that it was made from",
        ),
    ),
    (4, b"TFL3", Fault("is a TensorFlow Lite model", "give weights that were saved with PyTorch")),
)
"""Formats: the offset of their magic number, the magic number, and the fault."""


def recognise(path: Path) -> Fault | None:
    """Why a file is neither safetensors nor a torch file; None if its first bytes do not show it.

    Raises:
        OSError: it cannot be opened.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head:
        return Fault("is empty (0 bytes)", AGAIN)
    known = next(
        (fault for start, mark, fault in MAGIC_NUMBERS if head[start : start + len(mark)] == mark),
        None,
    )
    return known or _text(head) or _zip(path, head) or _onnx(head) or _cut_short(path, head)


def recognise_text(path: Path) -> Fault | None:
    """Why a text stands in place of a picture or a video; None if a file does not begin as a text.

    Raises:
        OSError: it cannot be opened.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
    start, mark, pointer = MAGIC_NUMBERS[0]
    if head[start:].startswith(mark):
        return pointer
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)  # its end may be cut
    except UnicodeDecodeError:
        return None
    is_text = bool(text) and all(char.isprintable() or char.isspace() for char in text)
    return (_text(head) or TEXT) if is_text else None


def is_safetensors(path: Path) -> bool:
    """Whether a file begins with the length of a header that fits into it, and an opening brace."""
    with path.open("rb") as file:
        head = file.read(9)
    return (
        len(head) == 9
        and head[8:] == b"{"
        and 8 + struct.unpack("<Q", head[:8])[0] <= path.stat().st_size
    )


def is_zip(path: Path) -> bool:
    """Whether a file begins as a zip archive, which torch files are."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _text(head: bytes) -> Fault | None:
    """The fault of a web page or a server's answer; None for files with zero bytes."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:512].lower()
    if b"\0" in start:
        return None
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) or (
        start.startswith((b"<!--", b"<?xml")) and b"<html" in start
    ):
        return PAGE
    if start.startswith(b"<?xml") or (start.startswith(b"<") and start[1:2].isalpha()):
        return ANSWER
    return JSON if start.startswith((b'{"', b"{ ", b"{\n", b"{\r", b"{}", b"[{")) else None


def _zip(path: Path, head: bytes) -> Fault | None:
    if not head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            names = [Path(name).name for name in archive.namelist()]
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError):
        return Fault("is cut short: the end of its zip is missing", AGAIN)
    if "data.pkl" not in names:
        return Fault("is a zip archive that torch did not write", ARCHIVE)
    if "constants.pkl" in names:
        return Fault(
            "is a TorchScript program",
            "save the state dict of it: safetensors.torch.save_file(dict(torch.jit.load(FILE, "
            "'cpu').state_dict()), 'weights.safetensors')",
        )
    return None


def _onnx(head: bytes) -> Fault | None:
    """The fault of an ONNX file: a small format version, then its producer or the graph."""
    return (
        ONNX
        if len(head) > 2
        and head[:1] == b"\x08"
        and 0 < head[1] < 32
        and head[2:3] in (b"\x12", b"\x1a", b"\x3a", b"\x42")
        else None
    )


def _cut_short(path: Path, head: bytes) -> Fault | None:
    """The fault of a safetensors file that is shorter than its header requires."""
    if len(head) < 9 or head[8:9] != b"{":
        return None
    (length,), size = struct.unpack("<Q", head[:8]), path.stat().st_size
    if length > 100_000_000:  # the limit of the format
        return None
    end = 8 + length
    if end <= size:
        with path.open("rb") as file:
            try:
                entries = json.loads(file.read(end)[8:])
                end += max(
                    (
                        entry["data_offsets"][1]
                        for name, entry in entries.items()
                        if name != "__metadata__"
                    ),
                    default=0,
                )
            except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
                return None
    return (
        Fault(f"is cut short: it has {size:,} of at least {end:,} bytes", AGAIN)
        if end > size
        else None
    )
