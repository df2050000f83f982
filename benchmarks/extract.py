"""`fmsd extract` beside the bare work: decoding the clips and finding faces in the same frames.

python benchmarks/extract.py [--videos FOLDER] [--copies N] [--rounds N] [--landmarks
shape_predictor_68_face_landmarks.dat] [--json PATH]

All sides take 32 frames of each clip, spread evenly, in as many processes as there are cores.
"bare" decodes each clip from its begin to its end and runs OpenCV's YuNet on these frames at the
size that `fmsd extract` searches at; it neither follows, aligns, encodes nor writes.

With the package dlib installed and `--landmarks`, the usual preprocessing script's way is measured,
too: OpenCV jumps to each frame, dlib's detector searches it once enlarged, landmarks are fitted,
and the aligned crop is written as PNG. That is our own rendering of the approach, not its code.

Without `--videos`, eight clips of drawn faces (640 x 480, 240 frames, H.264) are made.
"""

import functools
import importlib
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from harness import Row, arguments, interleaved, ratio, report, row

from fmsd.data.extraction.alignment import similarity, template
from fmsd.data.extraction.faces import YUNET, YuNet
from fmsd.data.extraction.model_files import find_model
from fmsd.data.extraction.recipe import Recipe
from fmsd.data.extraction.source_videos import SourceVideo
from fmsd.data.extraction.workers import extract_videos
from fmsd.data.manifest import evenly_spaced
from fmsd.data.sources.tree import is_video
from fmsd.data.synthetic.faces import Pose, render
from fmsd.data.synthetic.recording import CONDITIONS, draw_identity

FRAMES, SIDE, CORES = 32, 640, os.cpu_count() or 1


def drawn(folder: Path, count: int = 8, length: int = 240) -> list[Path]:
    """Clips of a face that moves over a plain ground."""
    made = []
    for seed in range(count):
        who, path = (
            draw_identity(np.random.default_rng(seed), CONDITIONS["synthetic"]),
            folder / f"{seed}.mp4",
        )
        face = (
            np.clip(render(who, Pose(0, 0, 0, 0, 0.5, 0.2, 0, 0, 0), seed, 0.3, 240).image, 0, 1)
            * 255
        ).astype(np.uint8)
        with av.open(path, "w") as container:
            stream: Any = container.add_stream("libx264", 25)
            stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
            ground = np.random.default_rng(seed).integers(90, 130, (480, 640, 3), np.uint8)
            for place in range(length):
                image, left = ground.copy(), round(400 * place / length)
                image[120:360, left : left + 240] = face
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))
        made.append(path)
    return made


def length(path: Path) -> int:
    """Number of frames, by decoding."""
    with av.open(path) as container:
        return sum(1 for _ in container.decode(video=0))


_network: Any = None


def bare(wanted: tuple[Path, Sequence[int]]) -> None:
    """Decodes a clip and searches the wanted frames."""
    global _network  # noqa: PLW0603  one per process
    if _network is None:
        cv2.setNumThreads(1)
        _network = cv2.FaceDetectorYN.create(
            str(find_model(YUNET)), "", (SIDE, SIDE), 0.6, 0.3, 100
        )
    path, places = wanted
    chosen = set(places)
    with av.open(path) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for place, frame in enumerate(container.decode(video=0)):
            if place in chosen:
                image = frame.to_ndarray(format="bgr24")
                scale = min(1.0, SIDE / max(image.shape[:2]))
                if scale < 1:
                    image = cv2.resize(
                        image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA
                    )
                _network.setInputSize((image.shape[1], image.shape[0]))
                _network.detect(image)


_dlib: Any = None


def by_dlib(wanted: tuple[Path, Sequence[int]], landmarks: str, out: Path) -> None:
    """Seeks each frame with OpenCV, aligns its largest face with dlib, and writes a PNG."""
    global _dlib  # noqa: PLW0603  one per process
    if _dlib is None:
        dlib = importlib.import_module("dlib")  # not a dependency
        cv2.setNumThreads(1)
        _dlib = dlib.get_frontal_face_detector(), dlib.shape_predictor(landmarks)
    detector, predictor = _dlib
    path, places = wanted
    capture = cv2.VideoCapture(str(path))
    for place in places:
        capture.set(cv2.CAP_PROP_POS_FRAMES, place)
        there, image = capture.read()
        found = detector(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), 1) if there else []
        if len(found):
            box = max(found, key=lambda box: box.area())
            points = np.array(
                [(point.x, point.y) for point in predictor(image, box).parts()], float
            )
            five = np.array(
                [points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]]
            )
            cut = cv2.warpAffine(image, similarity(five, template(256, 1.3)), (256, 256))
            cv2.imwrite(str(out / f"{path.stem}-{place}.png"), cut)


def spread(work: Callable[[Any], None], clips: Sequence[Any]) -> None:
    """Runs some work over the clips in all processes."""
    with ProcessPoolExecutor(CORES, multiprocessing.get_context("fork")) as pool:
        list(pool.map(work, clips))


def measure(
    folder: Path, videos: Sequence[Path], copies: int, rounds: int, landmarks: str | None
) -> list[Row]:
    """Seconds per pass over all clips, and ratios."""
    clips = [(path, evenly_spaced(length(path), FRAMES)) for path in videos] * copies
    frames = sum(len(places) for _, places in clips)
    sources = [
        SourceVideo(f"clip/{number}", path, (), 0, "clip", "real", "test", "")
        for number, (path, _) in enumerate(clips)
    ]
    passes = iter(range(1000))
    crops = []

    def ours() -> None:
        out = folder / str(next(passes))
        work = out / ".work"
        work.mkdir(parents=True)
        crops.append(
            sum(
                outcome.crops
                for outcome in extract_videos(
                    sources, YuNet, Recipe(frames=FRAMES), out, work, CORES, lambda *_: None
                )
            )
        )

    steps: dict[str, Callable[[], object]] = {
        "bare": lambda: spread(bare, clips),
        "fmsd extract": ours,
    }
    seconds = interleaved(steps, rounds)
    rows = [row("bare decode and detect", frames / statistics.median(seconds["bare"]), "frames/s")]
    rows.append(
        row("fmsd extract", frames / statistics.median(seconds["fmsd extract"]), "frames/s")
    )
    rows.append(
        row(
            "fmsd extract / bare, time",
            ratio(seconds, "fmsd extract", "bare"),
            "x",
            goal=1 / 0.8,
            peer="bare",
        )
    )
    rows.append(row("frames with a crop", crops[0] / frames, "share"))
    if landmarks:
        (folder / "dlib").mkdir()
        work = functools.partial(by_dlib, landmarks=landmarks, out=folder / "dlib")
        slow = interleaved({"dlib": lambda: spread(work, clips), "fmsd extract": ours}, 1, warmup=0)
        rows.append(
            row("dlib, enlarged once, OpenCV's jumps", frames / slow["dlib"][0], "frames/s")
        )
        rows.append(
            row(
                "dlib's way / fmsd extract, time",
                ratio(slow, "dlib", "fmsd extract"),
                "x",
                peer="fmsd extract",
            )
        )
        rows.append(
            row(
                "frames with a crop, dlib",
                len({path.name for path in (folder / "dlib").iterdir()}) * copies / frames,
                "share",
            )
        )
    return rows


if __name__ == "__main__":
    parser = arguments("Face crops from videos")
    parser.add_argument("--videos", type=Path, help="folder of clips; without it, drawn ones")
    parser.add_argument(
        "--copies", type=int, default=1, help="how often each clip is taken in a pass"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--landmarks", help="dlib's landmark model, to measure dlib's way, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = (
            sorted(path for path in options.videos.iterdir() if is_video(path))
            if options.videos
            else drawn(Path(place))
        )
        report(
            "Face crops from videos",
            measure(Path(place), found, options.copies, options.rounds, options.landmarks),
            options.json,
        )
