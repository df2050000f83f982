"""The Python API beside the modules: `fmsd.load`.

```python
import fmsd

detector = fmsd.load("runs/mine")
prediction = detector.predict("clip.mp4")
print(detector.verdict(prediction))
```
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from omegaconf import OmegaConf

from fmsd.cli.detectors import load_detector
from fmsd.data.extraction.faces import FaceDetector, YuNet
from fmsd.errors import InputError
from fmsd.inference.loading import LoadedDetector


def load(
    source: str | Path,
    *,
    device: str | None = None,
    base: str | Path | None = None,
    trust: Sequence[str] = (),
    face_detector: Callable[[], FaceDetector] = YuNet,
) -> LoadedDetector:
    """Loads a detector, to score files and images with it.

    Args:
        source: the folder of a finished run.
        device: `cpu`, `cuda`, `cuda:1` or `mps`; None for the one that the run's trainer chooses, a
            GPU if there is one.
        base: where the backbone's pretrained weights are, if they have moved since the run.
        trust: packages that the run's configuration may call beside fmsd and its plugins, each with
            a final dot.
        face_detector: builds the detector of faces.

    Raises:
        InputError: there is no detector at the source, or it cannot be used; the message says why,
            and what to do.
    """
    return load_detector(
        str(source),
        None if base is None else str(base),
        list(trust),
        None if device is None else OmegaConf.create(trainer_settings(device)),
        face_detector,
    )


def trainer_settings(device: str) -> dict[str, object]:
    """The settings of a trainer that compute on a device.

    Raises:
        InputError: there is no such name of a device.
    """
    match = re.fullmatch(r"(cpu|cuda|mps)(?::(\d+))?", device)
    if match is None or (match[1] != "cuda" and match[2]):
        raise InputError(f"device={device} is no device", "give cpu, cuda, cuda:1 or mps")
    return {"accelerator": match[1], "devices": [int(match[2])] if match[2] else 1}
