"""Passes that can be repeated: the same dropout masks every time, and batch norm statistics that only the first pass moves."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Repeatable:
    """A pass, see `fmsd.optim.wrapper.Pass`, whose repetitions see the random numbers of the first time.

    Batch norms in training mode normalise by the batch in repetitions, too, but leave their running
    statistics alone.

    Args:
        run: the pass.
        model: the model that it runs.
    """

    def __init__(self, run: Callable[[], Tensor], model: nn.Module) -> None:
        self.run, self.model = run, model
        device = next(model.parameters()).device
        self.accelerators = [] if device.type == "cpu" else [device]
        self.numbers: list[Tensor] | None = None

    def __call__(self) -> Tensor:
        """Runs the pass."""
        # autocast keeps cast parameters, which would be those of before a perturbation
        torch.clear_autocast_cache()
        if self.numbers is None:
            self.numbers = get_rng_states(self.accelerators)
            return self.run()
        set_rng_states(self.numbers, self.accelerators)
        with frozen_batchnorm_stats(self.model):
            return self.run()


def get_rng_states(accelerators: Sequence[torch.device]) -> list[Tensor]:
    """States of the random number generators of the CPU and of accelerators; they are small and on the CPU, so that nothing waits."""
    return [
        torch.get_rng_state(),
        *(
            torch.get_device_module(device).get_rng_state(*_named(device))
            for device in accelerators
        ),
    ]


def set_rng_states(states: Sequence[Tensor], accelerators: Sequence[torch.device]) -> None:
    """Puts the generators where `get_rng_states` found them."""
    torch.set_rng_state(states[0])
    for state, device in zip(states[1:], accelerators, strict=True):
        torch.get_device_module(device).set_rng_state(state, *_named(device))


def _named(device: torch.device) -> tuple[torch.device, ...]:
    """The argument that says which device of several; there is only one where Apple's is meant."""
    return () if device.type == "mps" else (device,)


@contextlib.contextmanager
def frozen_batchnorm_stats(model: nn.Module) -> Iterator[None]:
    """Inside, batch norms keep their running statistics bit for bit."""
    moving = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.training and module.track_running_stats
    ]
    kept = [[buffer.clone() for buffer in module.buffers(recurse=False)] for module in moving]
    try:
        yield
    finally:
        for module, buffers in zip(moving, kept, strict=True):
            for buffer, before in zip(module.buffers(recurse=False), buffers, strict=True):
                buffer.copy_(before)
