"""A small detector that was trained on the crops of drawn faces, for predictions."""

from pathlib import Path

from fmsd.cli.main import main
from tests.films import film, walk

TINY = (
    *("train", "data=folder", "data.batch_size=8", "data.workers=1", "method=norm"),
    *("trainer.accelerator=cpu", "trainer.max_epochs=1", "backbone=vit_tiny"),
    *("backbone.pretrained=false", "backbone.size=32", "+backbone.patch_size=8"),
    *("+backbone.embed_dim=24", "+backbone.depth=2", "+backbone.num_heads=2"),
)


def extract_faces(folder: Path, size: int = 64) -> Path:
    """Crops of drawn faces in films of three splits, three real ones and three fakes in each."""
    for part, split in enumerate(("train", "val", "test")):
        for number, domain in enumerate(("real", "swap")):
            for video in range(3):
                frames = walk(4, seed=100 * part + 10 * number + video)
                film(folder / "films" / split / domain / f"{split}{video}.mp4", frames)
    words = ["extract", "data=folder", f"data.root={folder / 'films'}", f"out={folder / 'crops'}"]
    assert main([*words, "workers=1", f"size={size}"]) == 0
    return folder / "crops"


def train_detector(folder: Path, *overrides: str) -> Path:
    """The folder of a run that was trained on such crops."""
    crops = extract_faces(folder)
    run = folder / "run"
    assert main([*TINY, f"data.root={crops}", f"hydra.run.dir={run}", *overrides]) == 0
    return run
