"""The layer mask of a run as files: which layers, or which subspaces, are trained."""

from lightning.pytorch import Callback, LightningModule, Trainer

from fmsd.figures import masks, style
from fmsd.peft.mask import LayerMask, MaskHistory
from fmsd.runs.folder import MASK, Run

PICTURE = "mask.png"
"""The picture of a mask, in the folder of its run."""


class MaskHistoryWriter(Callback):
    """Writes the history of a mask at the end of every epoch, on rank 0."""

    def __init__(self, run: Run, history: MaskHistory | None) -> None:
        self.run = run
        self.history = history

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes it."""
        if trainer.is_global_zero:
            write_history(self.run, self.history)


def write_mask(run: Run, mask: LayerMask | None) -> None:
    """Writes the layers that a method chose, if it chose any, as JSON and as a picture."""
    if mask is not None:
        run.write(MASK, mask.text())
        style.write_png(masks.plot_layer_mask(mask), run.folder / PICTURE)


def write_history(run: Run, history: MaskHistory | None) -> None:
    """Writes the subspaces trained so far, where these change, as JSON.

    From the first mask on also as a picture.
    """
    if history is not None:
        run.write(MASK, history.text())
        if history.steps:
            style.write_png(masks.plot_mask_history(history), run.folder / PICTURE)
