"""`fmsd predict` beside the bare work, its memory on a long film, and ONNX Runtime beside torch.

python benchmarks/predict.py [--videos FOLDER] [--frames N] [--size PIXELS] [--rounds N]
[--minutes N] [--json PATH]

The network is `sam2_hiera_tiny`, with its weights if the folder `$FMSD_TEST_DATA` has them, else
with random ones; the clips are those of its folder `videos`, else drawn ones.

"bare" decodes each clip from its begin to its end in one thread, as `fmsd` does, runs OpenCV's
YuNet on the same frames at the size that `fmsd predict` searches at, and the network on as many
images, in batches of 32. It neither follows nor aligns faces.

Memory is the high-water mark of the resident memory of a process of its own, imports included,
that predicts a film of drawn faces; the network is replaced by the mean of the pixels, whose memory
would hide that of the film. Linux only.
"""

import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from extract import drawn
from harness import Row, arguments, interleaved, ratio, report, row

from fmsd.data.extraction.faces import YUNET, YuNet
from fmsd.data.extraction.model_files import find_model
from fmsd.data.manifest import evenly_spaced
from fmsd.data.sources.tree import is_video
from fmsd.data.synthetic.faces import Pose, render
from fmsd.data.synthetic.recording import CONDITIONS, draw_identity
from fmsd.inference.crop_scoring import CropScores, CropSettings
from fmsd.inference.export import PortableDetector, trace, write_onnx
from fmsd.inference.facts import DetectorFacts
from fmsd.inference.media import Sampling
from fmsd.inference.metadata import Metadata
from fmsd.inference.onnx_scorer import OnnxScorer
from fmsd.inference.predictor import Predictor
from fmsd.inference.quantise import quantise
from fmsd.inference.torch_scorer import TorchScorer
from fmsd.models.detector import Detector, detector

BATCH, SIDE = 32, 640
HOUR, MINUTE = "a film of one hour", "a film of one minute"


def network(size: int) -> Detector:
    """The detector, with real weights where there are some."""
    weights = Path(os.environ.get("FMSD_TEST_DATA", ""), "weights", "sam2_hiera_tiny.safetensors")
    made = detector("sam2_hiera_tiny", size, weights=weights if weights.is_file() else None)
    torch.nn.init.normal_(made.backbone.get_parameter("head.fc.weight"), std=0.02)
    return made.eval()


def length(path: Path) -> int:
    """Number of frames of a clip."""
    with av.open(path) as container:
        return sum(1 for _ in container.decode(video=0))


def bare(clips: Sequence[tuple[Path, Sequence[int], int]], model: Detector, size: int) -> None:
    """Decodes the clips, searches the wanted frames, and runs the network.

    Args:
        clips: path, positions of the wanted frames, and number of images for the network.
    """
    finder = cv2.FaceDetectorYN.create(str(find_model(YUNET)), "", (SIDE, SIDE), 0.6, 0.3, 100)
    for path, places, faces in clips:
        chosen, images = set(places), list[np.ndarray]()
        with av.open(path) as container:
            container.streams.video[0].codec_context.thread_count = 1
            for place, frame in enumerate(container.decode(video=0)):
                if place not in chosen:
                    continue
                image = frame.to_ndarray(format="bgr24")
                scale = min(1.0, SIDE / max(image.shape[:2]))
                if scale < 1:
                    image = cv2.resize(
                        image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA
                    )
                finder.setInputSize((image.shape[1], image.shape[0]))
                finder.detect(image)
                images.append(cv2.resize(image, (size, size)))
        images = [images[number % len(images)] for number in range(faces)]
        for start in range(0, faces, BATCH):
            planes = np.stack(images[start : start + BATCH]).transpose(0, 3, 1, 2).copy()
            with torch.inference_mode():
                model(torch.from_numpy(planes))


def speed(
    videos: Sequence[Path], model: Detector, size: int, frames: int, rounds: int
) -> list[Row]:
    """Time of predicting the clips, and of the bare work."""
    predictor = Predictor(TorchScorer(model, size), YuNet(), sampling=Sampling(frames))
    found = [predictor.predict(path) for path in videos]
    scored = [(path, each) for path, each in zip(videos, found, strict=True) if each.sampled]
    clips = [(path, evenly_spaced(length(path), frames), len(each.frames)) for path, each in scored]
    steps: dict[str, Callable[[], object]] = {
        "bare": lambda: bare(clips, model, size),
        "predict": lambda: [predictor.predict(path) for path, _ in scored],
    }
    seconds = interleaved(steps, rounds)
    faces = sum(clip[2] for clip in clips)
    return [
        row(f"bare: {len(clips)} clips, {faces} faces", statistics.median(seconds["bare"]), "s"),
        row("fmsd predict", statistics.median(seconds["predict"]), "s"),
        row("fmsd predict / bare, time", ratio(seconds, "predict", "bare"), "x", 1.15, "bare"),
    ]


def write_film(path: Path, seconds: int, rate: int = 2) -> None:
    """A film of a drawn face that moves."""
    who = draw_identity(np.random.default_rng(0), CONDITIONS["synthetic"])
    still = Pose(0, 0, 0, 0, 0.5, 0.2, 0, 0, 0)
    face = (np.clip(render(who, still, 0, 0.0, 96).image, 0, 1) * 255).astype(np.uint8)
    images = [np.full((128, 192, 3), 120, np.uint8) for _ in range(40)]
    for place, image in enumerate(images):
        image[16:112, 2 * place : 2 * place + 96] = face
    with av.open(path, "w") as container:
        stream: Any = container.add_stream("libx264", rate)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for number in range(seconds * rate):
            frame = av.VideoFrame.from_ndarray(images[number % len(images)], format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def mean(crops: np.ndarray) -> CropScores:
    """The mean of the pixels of each crop as its score."""
    return CropScores(crops.mean((1, 2, 3)) / 255, np.full(len(crops), np.nan))


def peak(path: Path, sampling: Sampling) -> tuple[float, int]:
    """The high-water mark of this process in MB after predicting a film, and the faces in it."""
    found = Predictor(mean, YuNet(), sampling=sampling).predict(path)
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(kilobytes) * 1024 / 1e6, len(found.frames)


def memory(folder: Path, minutes: int) -> list[Row]:
    """Peak memory of a long film as a multiple of a short one's."""
    films = {HOUR: folder / "long.mp4", MINUTE: folder / "short.mp4"}
    for (_, path), seconds in zip(films.items(), (60 * minutes, 60), strict=True):
        write_film(path, seconds)
    rows = []
    for name, sampling in (("frames=32", Sampling()), ("fps=1", Sampling(fps=1))):
        peaks = {}
        for film, path in films.items():
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                peaks[film], faces = pool.apply(peak, (path, sampling))
            rows.append(row(f"{film}, {name}: {faces} faces", peaks[film], "MB"))
        share = peaks[HOUR] / peaks[MINUTE]
        rows.append(row(f"hour / minute, {name}, memory", share, "x", 1.2, MINUTE))
    return rows


def runtimes(folder: Path, model: Detector, size: int, rounds: int) -> list[Row]:
    """Time of a batch of crops in torch and in ONNX Runtime, in float32 and in 8 bits."""
    facts = DetectorFacts("benchmark", size, CropSettings(), True, "mean", {}, "iid", {})
    portable, about = PortableDetector(model, None, None), Metadata(facts, None)
    torch_scorer = TorchScorer(model, size)
    crops = np.random.default_rng(0).integers(0, 256, (BATCH, size, size, 3)).astype(np.uint8)
    expected = torch_scorer(crops).score
    portable.use_plain_attention()
    write_onnx(trace(portable, size), portable, about, folder / "a.onnx")
    quantise(folder / "a.onnx", folder / "b.onnx")
    whole, small = OnnxScorer(folder / "a.onnx"), OnnxScorer(folder / "b.onnx")
    steps: dict[str, Callable[[], object]] = {
        "torch": lambda: torch_scorer(crops),
        "ONNX Runtime": lambda: whole(crops),
        "ONNX Runtime, int8": lambda: small(crops),
    }
    seconds = interleaved(steps, rounds)
    rows = [row("torch", BATCH / statistics.median(seconds["torch"]), "crops/s")]
    for name, scorer in (("ONNX Runtime", whole), ("ONNX Runtime, int8", small)):
        rows += [
            row(f"{name} / torch, time", ratio(seconds, name, "torch"), "x", peer="torch"),
            row(
                f"{name}, largest difference of a score",
                float(np.abs(scorer(crops).score - expected).max()),
                "",
                peer="torch",
            ),
        ]
    return rows


if __name__ == "__main__":
    title = "Predicting files"
    parser = arguments(title)
    parser.add_argument("--videos", type=Path, help="folder of clips")
    parser.add_argument("--frames", type=int, default=32, help="frames of each clip")
    parser.add_argument("--size", type=int, default=224, help="side of the network's input")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=int, default=60, help="length of the long film")
    options = parser.parse_args()
    shared = Path(os.environ.get("FMSD_TEST_DATA", ""), "videos")
    clips_folder = options.videos or (shared if shared.is_dir() else None)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        clips = (
            sorted(path for path in clips_folder.iterdir() if is_video(path))
            if clips_folder
            else drawn(folder)
        )
        model = network(options.size)
        rows = memory(folder, options.minutes)
        rows += speed(clips, model, options.size, options.frames, options.rounds)
        rows += runtimes(folder, model, options.size, options.rounds)
        report(title, rows, options.json)
