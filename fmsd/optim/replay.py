"""Passes that can be repeated: with equal dropout masks, and without moving batch norms twice."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Repeatable:
    """A pass, see `fmsd.optim.wrapper.Pass`, whose repetitions draw the same random numbers.

    In repetitions batch norms in training mode normalise by the batch as in the first run, but do
    not update their running statistics.

    Args:
        run: the pass.
        model: the model whose forward pass it runs.
    """

    def __init__(self, run: Callable[[], Tensor], model: nn.Module) -> None:
        self.run, self.model = run, model
        device = next(model.parameters()).device
        self.accelerators = [] if device.type == "cpu" else [device]
        self.rng_states: list[Tensor] | None = None

    def __call__(self) -> Tensor:
        """Runs the pass."""
        # The cache of autocast holds copies of the parameters, stale after a perturbation.
        torch.clear_autocast_cache()
        if self.rng_states is None:
            self.rng_states = get_rng_states(self.accelerators)
            return self.run()
        set_rng_states(self.rng_states, self.accelerators)
        with frozen_batchnorm_stats(self.model):
            return self.run()


def get_rng_states(accelerators: Sequence[torch.device]) -> list[Tensor]:
    """Returns the random number generator states of CPU and accelerators, as CPU tensors."""
    return [
        torch.get_rng_state(),
        *(
            torch.get_device_module(device).get_rng_state(*_device_argument(device))
            for device in accelerators
        ),
    ]


def set_rng_states(states: Sequence[Tensor], accelerators: Sequence[torch.device]) -> None:
    """Sets the random number generators to states of `get_rng_states`."""
    torch.set_rng_state(states[0])
    for state, device in zip(states[1:], accelerators, strict=True):
        torch.get_device_module(device).set_rng_state(state, *_device_argument(device))


def _device_argument(device: torch.device) -> tuple[torch.device, ...]:
    """Returns the device as an argument; of Apple's GPU, of which there is one, no argument."""
    return () if device.type == "mps" else (device,)


@contextlib.contextmanager
def frozen_batchnorm_stats(model: nn.Module) -> Iterator[None]:
    """Restores the running statistics of all batch norms on leaving the context, bit for bit."""
    updated = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.training and module.track_running_stats
    ]
    saved = [[buffer.clone() for buffer in module.buffers(recurse=False)] for module in updated]
    try:
        yield
    finally:
        for module, buffers in zip(updated, saved, strict=True):
            for buffer, before in zip(module.buffers(recurse=False), buffers, strict=True):
                buffer.copy_(before)
