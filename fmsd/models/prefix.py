"""Frozen-prefix reuse: several passes over the same images compute what lies below the lowest trainable part once.

A wrapper that perturbs only trainable parameters between its passes leaves everything below them as
it is. Where that ends is not read off the forward function but seen in the first pass: the output
of a frozen module is kept if nothing that goes in requires a gradient. What is not provably the
same again is computed again, so that outputs, gradients and random numbers equal those without
reuse bit by bit.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fmsd.optim.replay import get_rng_states

Key = tuple[nn.Module, int]
"""A module and how many times it had been called before in its pass."""


def frozen(model: nn.Module) -> tuple[nn.Module, ...]:
    """The largest modules without anything trainable (no parameter with requires_grad in their subtree), in the order of the module tree.

    Modules without any parameter or buffer (activations, dropout, pooling) are left out: they cost
    little, and are computed in every pass.
    """
    if any(parameter.requires_grad for parameter in model.parameters()):
        # The same module may stand at several places of the tree.
        return tuple(
            dict.fromkeys(
                itertools.chain.from_iterable(frozen(child) for child in model.children())
            )
        )
    return (
        (model,) if any(True for _ in itertools.chain(model.parameters(), model.buffers())) else ()
    )


class Prefix:
    """Outputs of frozen modules that depend on the input alone; the first pass records them, later passes over the same input replay them.

        memory = Prefix(frozen(model))
        for _ in range(passes):
            with memory:
                loss = criterion(model(image))
            loss.backward()  # here or in the block
            ...  # moves trainable parameters

    A block records while nothing is kept, that is the first time it is entered, and again after a
    pass that gave nothing to keep: one that raised, ran without gradients, or moved parameters or
    buffers of frozen modules. One block is for one pass, and one memory for one input; it holds the
    activations it keeps until it is thrown away.

    Restore random generators before a block, not in it: what comes after a random number, drawn or
    set, is computed in every pass.

    Hooks of the modules themselves run in every pass, those inside of a replayed module do not.
    Trainable values must reach frozen modules with their gradients: what a model detaches from them
    looks like a constant.

    Args:
        modules: modules without trainable parameters, e.g. those of `frozen`.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        # With all that is in them, as a model may call the parts of a module instead of the module
        # (the blocks of a list); the outermost counts.
        self._modules = list(dict.fromkeys(part for module in modules for part in module.modules()))
        self._records: dict[Key, _Record] = {}
        self._overridden: list[tuple[nn.Module, Any]] = []
        self._calls: defaultdict[nn.Module, int] = defaultdict(int)
        self._recording = self._inside = False

    def __enter__(self) -> "Prefix":
        if any(_overrides(module.__dict__.get("forward")) for module in self._modules):
            raise RuntimeError(
                "These modules are in the block of a Prefix already; leave it before entering "
                "another one."
            )
        before = _state(self._modules)
        if self._records and before.marks != self._state.marks:
            # weights, statistics or modes have changed since, in the pass or after it
            self._records.clear()
        self._state = before
        self._recording = not self._records
        devices = sorted(
            {tensor.device for tensor in before.tensors if tensor.device.type != "meta"}, key=str
        )
        self._types = sorted({"cpu"} | {device.type for device in devices})
        self._accelerators = [device for device in devices if device.type != "cpu"]
        self._generators = get_rng_states(self._accelerators) if self._recording else []
        self._calls.clear()
        for module in self._modules:
            # Past nn.Module.__setattr__, which is slow.
            self._overridden.append((module, module.__dict__.get("forward")))
            module.__dict__["forward"] = partial(self._call, module, module.forward)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for module, previous in self._overridden:
            module.__dict__.pop("forward", None)
            if previous is not None:
                module.__dict__["forward"] = previous
        self._overridden.clear()
        if self._recording and error is not None:
            self._records.clear()
        for key in [key for key, record in self._records.items() if not record.intact()]:
            del self._records[key]  # frees its memory

    def _call(
        self, module: nn.Module, forward: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        """Takes the place of a module's forward."""
        if self._inside or torch.compiler.is_compiling():
            return forward(*args, **kwargs)
        key = (module, self._calls[module])
        self._calls[module] += 1
        self._inside = True
        try:
            if self._recording:
                return self._record(key, forward, args, kwargs)
            return self._replay(key, forward, args, kwargs)
        finally:
            self._inside = False

    def _record(
        self, key: Key, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        inputs, form = pytree.tree_flatten((args, kwargs))
        if not torch.is_grad_enabled() or not _constant(inputs):
            return forward(*args, **kwargs)
        # Made before the call, which may change its inputs in place; it then has to do so in every
        # pass.
        call, versions = _Call(form, _describe(inputs), self._autocast()), _versions(inputs)
        output = forward(*args, **kwargs)
        leaves, form = pytree.tree_flatten(output)
        if _constant(leaves) and _versions(inputs) == versions and self._still():
            self._records[key] = _Record(call, leaves, form, _versions(leaves))
        return output

    def _replay(
        self, key: Key, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        record = self._records.get(key)
        if record is None:
            return forward(*args, **kwargs)
        if not record.intact():
            del self._records[key]
            return forward(*args, **kwargs)
        inputs, form = pytree.tree_flatten((args, kwargs))
        if (
            not torch.is_grad_enabled()
            or not _constant(inputs)
            or record.call != _Call(form, _describe(inputs), self._autocast())
        ):
            return forward(*args, **kwargs)
        return pytree.tree_unflatten(
            record.leaves, record.form
        )  # containers are new, as the caller may change them

    def _still(self) -> bool:
        """Whether no random number has been drawn since the block was entered. Of the whole pass: what follows may depend on one."""
        if self._generators and not all(
            map(torch.equal, self._generators, get_rng_states(self._accelerators))
        ):
            self._generators = []
        return bool(self._generators)

    def _autocast(self) -> list[tuple[bool, torch.dtype]]:
        return [
            (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
            for kind in self._types
        ]


class _Call(NamedTuple):
    """How a module was called: equal in another pass, or the record is of something else."""

    form: pytree.TreeSpec
    inputs: list[Any]
    autocast: list[tuple[bool, torch.dtype]]


class _Record(NamedTuple):
    """The output of a call, in leaves, and the versions its tensors had when it was made."""

    call: _Call
    leaves: list[Any]
    form: pytree.TreeSpec
    versions: list[int]

    def intact(self) -> bool:
        """Whether the tensors are as the module gave them. Views and aliases share one version, so a change of any of them shows."""
        return _constant(self.leaves) and _versions(self.leaves) == self.versions


class _State(NamedTuple):
    """What the outputs of modules depend on beside their inputs. The tensors are held for their ids to stay theirs."""

    tensors: list[Tensor]
    marks: list[Any]


def _state(modules: Sequence[nn.Module]) -> _State:
    tensors = [
        tensor
        for module in modules
        for tensor in (*module._parameters.values(), *module._buffers.values())
        if tensor is not None
    ]
    marks: list[Any] = [module.training for module in modules]
    # Inference tensors have no version; nor can they change outside of inference mode.
    marks += [
        (id(tensor), tensor.requires_grad, 0 if tensor.is_inference() else tensor._version)
        for tensor in tensors
    ]
    return _State(tensors, marks)


def _constant(leaves: list[Any]) -> bool:
    """Whether every leaf is a plain value or a plain tensor outside of the graph; an object of any other kind may hide a tensor."""
    return all(
        not (leaf.requires_grad or leaf.is_inference())
        if type(leaf) in (Tensor, nn.Parameter)
        else leaf is None or isinstance(leaf, bool | int | float | str | torch.dtype | torch.device)
        for leaf in leaves
    )


def _versions(leaves: list[Any]) -> list[int]:
    return [leaf._version for leaf in leaves if isinstance(leaf, Tensor)]


def _describe(leaves: list[Any]) -> list[Any]:
    """What tells the inputs of two calls apart without a look at the numbers; a version counts the changes in place since a tensor was made."""
    return [
        (leaf.shape, leaf.dtype, leaf.device, leaf._version) if isinstance(leaf, Tensor) else leaf
        for leaf in leaves
    ]


def _overrides(forward: object) -> bool:
    """Whether a forward is that of a Prefix."""
    return isinstance(forward, partial) and getattr(forward.func, "__func__", None) is Prefix._call
