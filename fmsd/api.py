"""The Python API beside the modules: `fmsd.load`.

```python
import fmsd

detector = fmsd.load("runs/mine")
prediction = detector.predict("clip.mp4")
print(detector.verdict(prediction))
```
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from fmsd.cli.detectors import load_detector
from fmsd.data.extraction.faces import FaceDetector, YuNet
from fmsd.inference.loaded_detector import LoadedDetector


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
        source: the folder of a finished run, its address on the Hub (`hf://USER/NAME`), a
            FILE.safetensors of `fmsd fold`, or a FILE.onnx of `fmsd export`, which needs no torch.
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
        device,
        None if base is None else str(base),
        list(trust),
        face_detector,
    )
