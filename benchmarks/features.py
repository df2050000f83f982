"""A sweep of linear probes whose features are computed once, against a single probe.

python benchmarks/features.py --faces FOLDER --weights FILE [--probes 10] [--size 96] [--json PATH]

FOLDER and FILE are the data of `data=faces` and the weights of `sam2_hiera_tiny`. Seconds of the
processor over all processes, with an empty cache for each sweep: other work does not add to them.
"""

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import Row, arguments, report, row


def seconds(probes: int, folder: Path, overrides: list[str], *, keep: bool = True) -> float:
    """The processor's seconds of a sweep over seeds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [
        *(sys.executable, "-m", "fmsd", "train", "-m", "method=probe", "data=faces"),
        *("data.augment=none", "backbone=sam2_hiera_tiny", f"cache_features={str(keep).lower()}"),
        *("seed=" + ",".join(map(str, range(probes))), f"hydra.sweep.dir={folder}", *overrides),
    ]
    environment = os.environ | {"FMSD_CACHE": f"{folder}-cache", "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(faces: Path, weights: Path, probes: int, size: int) -> list[Row]:
    """One probe, several, and one without kept features."""
    overrides = [f"data.root={faces}", f"backbone.weights={weights}", f"backbone.size={size}"]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        one = seconds(1, folder / "one", overrides)
        several = seconds(probes, folder / "several", overrides)
        plain = seconds(1, folder / "plain", overrides, keep=False)
    return [
        row("one probe", one, "s"),
        row(f"{probes} probes", several, "s"),
        row(f"{probes} probes / one", several / one, "", goal=1.3),
        row("one probe without kept features / with", plain / one, ""),
    ]


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--probes", type=int, default=10)
    parser.add_argument("--size", type=int, default=96)
    options = parser.parse_args()
    rows = measure(options.faces, options.weights, options.probes, options.size)
    report("Linear probes on features that are computed once", rows, options.json)
