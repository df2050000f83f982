"""The capture of a detector's features, from the beginning of a training to its end."""

from lightning.pytorch import Callback, LightningModule, Trainer

from fmsd.models.features import FeatureCapture


class CaptureCallback(Callback):
    """Attaches a capture before the first step, and removes it however training ends."""

    def __init__(self, capture: FeatureCapture) -> None:
        self.capture = capture

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attaches it; resumed and repeated trainings, too."""
        self.capture.attach()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Removes it."""
        self.capture.remove()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Removes it after an error or a signal."""
        self.capture.remove()
