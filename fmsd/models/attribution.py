"""Attribution maps: heat maps over the patches or the feature map of a detector's backbone.

Attention rollout: S. Abnar, W. Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020,
arXiv 2005.00928. Grad-CAM: R. R. Selvaraju, M. Cogswell, A. Das, R. Vedantam, D. Parikh, D. Batra,
"Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017, arXiv
1610.02391.

Rollout follows the attention of a plain vision transformer from the scored token back to the
patches: it shows what was attended to, whatever the logit. Grad-CAM weighs the channels of a
feature map by their gradients: it shows what raised the logit of fake. Both leave the detector
unchanged, bit for bit.
"""

import contextlib
import difflib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Shaped
from timm.layers.attention import Attention, AttentionRope
from timm.models.beit import Attention as BeitAttention
from timm.models.eva import EvaAttention
from timm.models.vision_transformer_relpos import RelPosAttention
from torch import Tensor, nn

from fmsd.errors import InputError
from fmsd.models.detector import Detector

AttributionMethod = Literal["rollout", "gradcam"]

ATTENTIONS = (Attention, AttentionRope, EvaAttention, BeitAttention, RelPosAttention)
"""Classes whose `attn_drop` gets the attention weights over all tokens of an image."""


def default_method(detector: Detector) -> AttributionMethod:
    """The method of attribution: rollout if the backbone allows it, else Grad-CAM."""
    return "gradcam" if rollout_obstacle(detector.backbone) else "rollout"


@torch.no_grad()
def rollout(
    detector: Detector, image: Shaped[Tensor, "batch 3 height width"]
) -> Float[Tensor, "batch rows columns"]:
    """Computes the attention rollout of the scored token over the patches.

    If the backbone pools by average, it is the mean rollout of the pooled tokens. A map's sum is at
    most 1: class and register tokens hold the rest, and the prompt tokens of blocks that insert
    some, see `inserted_tokens`.

    Args:
        detector: in evaluation mode.
        image: input of the detector.

    Raises:
        InputError: the backbone is no plain vision transformer that scores its class token or the
            average of its patches.
    """
    check_eval_mode(detector)
    backbone: Any = detector.backbone
    if why := rollout_obstacle(backbone):
        raise InputError(
            f"Attention rollout of {type(backbone).__name__} is not possible, as {why}",
            "set how=gradcam",
        )
    layers = [attention for (attention,) in map(_attentions, backbone.blocks)]
    with _weights(layers) as seen:
        detector(image)
    prefix, grid = backbone.num_prefix_tokens, patch_grid(backbone, *image.shape[-2:])
    seen = [
        _without_tokens(weights, prefix, inserted_tokens(block))
        for weights, block in zip(seen, backbone.blocks, strict=True)
    ]
    if grid is None or [weights.shape[1] for weights in seen] != [prefix + grid[0] * grid[1]] * len(
        layers
    ):
        raise InputError(
            f"Attention rollout of {type(backbone).__name__} is not possible, as its tokens are "
            "not its patches",
            "set how=gradcam",
        )
    whole = 0 if getattr(backbone, "pool_include_prefix", False) else prefix
    scored = slice(1) if backbone.global_pool == "token" else slice(whole, None)
    return rollout_matrix(seen)[:, scored, prefix:].mean(1).unflatten(1, grid)


def rollout_matrix(
    layers: Sequence[Float[Tensor, "batch tokens tokens"]],
) -> Float[Tensor, "batch tokens tokens"]:
    """The share of each input token (column) in each output token (row).

    It is the product over layers of half the attention plus half the identity, the residual
    connection.

    Args:
        layers: attention weights from first to last layer, averaged over heads; rows sum to 1, or
            to less where tokens that are no input of the network hold the rest.
    """
    identity = torch.eye(layers[0].shape[-1], dtype=layers[0].dtype, device=layers[0].device)
    joint = identity.expand_as(layers[0])
    for attention in layers:
        joint = (attention + identity) / 2 @ joint
    return joint


def rollout_obstacle(backbone: nn.Module) -> str | None:
    """The reason why attention rollout does not apply to a backbone; None if it does."""
    blocks, pool = getattr(backbone, "blocks", None), getattr(backbone, "global_pool", None)
    if not isinstance(blocks, nn.Sequential | nn.ModuleList) or not hasattr(
        backbone, "num_prefix_tokens"
    ):
        return "it is no plain vision transformer"
    if any(len(_attentions(block)) != 1 for block in blocks):
        return "its blocks do not each have one attention over all tokens of a known kind"
    if pool not in ("token", "avg"):
        return (
            "it scores neither its class token nor the average of its patches (it pools by "
            f"{pool!r})"
        )
    return None


def inserted_tokens(block: nn.Module) -> int:
    """The number of tokens that a block inserts after the prefix tokens, and takes out again.

    A method's block (`fmsd.peft.vpt.PromptedBlock`) states it as its attribute of this name.
    """
    return getattr(block, "inserted_tokens", 0)


def _without_tokens(
    weights: Float[Tensor, "batch tokens tokens"], start: int, count: int
) -> Float[Tensor, "batch kept kept"]:
    """Attention weights without the rows and columns of `count` tokens from `start` on."""
    kept = [*range(start), *range(start + count, weights.shape[1])]
    return weights if count == 0 else weights[:, kept][:, :, kept]


def gradcam(
    detector: Detector, image: Shaped[Tensor, "batch 3 height width"], layer: str | None = None
) -> Float[Tensor, "batch rows columns"]:
    """Computes Grad-CAM of the logit of fake, relu(sum_c a_c A_c).

    A_c is channel c of the feature map, a_c the mean gradient of the logit there.

    Args:
        detector: in evaluation mode.
        image: input of the detector.
        layer: the module of the backbone whose output is the feature map; by default the input of
            the head's pooling or, of a vision transformer, the normalised input of its last block,
            after which the class token no longer attends to the patches.

    Raises:
        InputError: the layer does not exist, its output is no map of the image, or the logit does
            not depend on it.
    """
    check_eval_mode(detector)
    backbone: Any = detector.backbone
    layer = default_layer(backbone) if layer is None else layer
    name = f"The output of {layer or 'forward_features'} of {type(backbone).__name__}"
    remedy = "give another layer=NAME"
    taken: list[Tensor] = []

    def tap(output: Any) -> Tensor:
        if not isinstance(output, Tensor) or taken:
            raise InputError(f"{name} is not one tensor a pass", remedy)
        taken.append(output.detach().requires_grad_())
        return taken[0].clone()  # the following layers may change it in place

    with torch.enable_grad(), _tapped(backbone, layer, tap):
        logit = detector(image)
        (gradient,) = (
            torch.autograd.grad(logit.sum(), taken, allow_unused=True)
            if taken and logit.requires_grad
            else (None,)
        )
    if gradient is None:
        raise InputError(f"{name} has no part in the logit", remedy)
    size = (int(image.shape[-2]), int(image.shape[-1]))
    values = spatial_map(taken[0].detach(), backbone, size, name, remedy)
    slopes = spatial_map(gradient, backbone, size, name, remedy)
    if not slopes.any():
        raise InputError(f"{name} has no part in the logit", remedy)
    return (slopes.mean((2, 3), keepdim=True) * values).sum(1).relu()


def default_layer(backbone: Any) -> str | None:
    """The first norm in the last block of a vision transformer; None of other backbones."""
    blocks = getattr(backbone, "blocks", None)
    if not isinstance(blocks, nn.Sequential | nn.ModuleList) or not hasattr(
        backbone, "num_prefix_tokens"
    ):
        return None
    last = f"blocks.{len(blocks) - 1}"
    inner = dict(blocks[-1].named_modules())
    # A method may have put the block into one of its own.
    return next((f"{last}.{name}" for name in ("norm1", "block.norm1") if name in inner), None)


def spatial_map(
    output: Tensor, backbone: nn.Module, size: tuple[int, int], name: str, remedy: str
) -> Float[Tensor, "batch channels rows columns"]:
    """A layer's output as a map of the image, channels first.

    Args:
        output: channels first or last, or patch tokens with or without prefix tokens.
        size: height and width of the image in pixels.
        name, remedy: for messages.

    Raises:
        InputError: the shape is none of these, or ambiguous.
    """
    shape, grid = output.shape, patch_grid(backbone, *size)
    if output.ndim == 3 and grid is not None:
        before, prefix = shape[1] - grid[0] * grid[1], getattr(backbone, "num_prefix_tokens", 0)
        prompts = {inserted_tokens(block) for block in getattr(backbone, "blocks", ())}
        if before in {0, prefix, *(prefix + count for count in prompts)}:
            return output[:, before:].mT.unflatten(2, grid)
    ways = []
    if output.ndim == 4:
        ways = [
            way
            for way in (output, output.permute(0, 3, 1, 2))
            if way.shape[2] * size[1] == way.shape[3] * size[0]
        ]
    if len(ways) != 1:
        raise InputError(
            f"{name} has the shape {tuple(shape[1:])}, which does not tell its places in an image "
            f"of {size[0]} x {size[1]}",
            f"{remedy}",
        )
    if ways[0].shape[2:].numel() == 1:
        raise InputError(
            f"{name} has one place only for the whole image",
            f"{remedy}, or train with a larger backbone.size",
        )
    return ways[0]


def patch_grid(backbone: nn.Module, height: int, width: int) -> tuple[int, int] | None:
    """The rows and columns of a vision transformer's patches; None if it has no patch grid."""
    count = getattr(getattr(backbone, "patch_embed", None), "dynamic_feat_size", None)
    return None if count is None else count((height, width))


def check_eval_mode(detector: Detector) -> None:
    """Checks that a detector is in evaluation mode, so that a pass changes no statistics."""
    if any(module.training for module in detector.modules()):
        raise ValueError("the detector is in training mode: call detector.eval() first")


def _attentions(block: nn.Module) -> list[nn.Module]:
    """The attention modules of a block; derived classes are not known to behave alike."""
    return [module for module in block.modules() if type(module) in ATTENTIONS]


@contextlib.contextmanager
def _weights(layers: Sequence[Any]) -> Iterator[list[Tensor]]:
    """Yields a list that collects the attention weights of each pass, averaged over heads.

    timm's fused attention does not expose them, so it is off inside the context.
    """
    seen: list[Tensor] = []
    fused = [layer.fused_attn for layer in layers]
    hooks = [
        layer.attn_drop.register_forward_pre_hook(
            lambda _, inputs: seen.append(inputs[0].float().mean(1))
        )
        for layer in layers
    ]
    try:
        for layer in layers:
            layer.fused_attn = False
        yield seen
    finally:
        for layer, was, hook in zip(layers, fused, hooks, strict=True):
            layer.fused_attn = was
            hook.remove()


@contextlib.contextmanager
def _tapped(backbone: Any, layer: str | None, tap: Callable[[Any], Tensor]) -> Iterator[None]:
    """Passes a layer's output, or without one the input of the head, through `tap`.

    Raises:
        InputError: the backbone has no such layer.
    """
    if layer is None:
        # A method of timm's models, not a module: no hook can be registered on it.
        whole = backbone.forward_features
        backbone.forward_features = lambda *args, **kwargs: tap(whole(*args, **kwargs))
        try:
            yield
        finally:
            del backbone.forward_features
        return
    modules = dict(backbone.named_modules())
    if not layer or layer not in modules:
        close = ", ".join(difflib.get_close_matches(layer, modules, n=3)) or ", ".join(
            list(modules)[1:6]
        )
        raise InputError(
            f"layer={layer} is none of {type(backbone).__name__}'s", f"close ones are {close}"
        )
    hook = modules[layer].register_forward_hook(lambda _, inputs, output: tap(output))
    try:
        yield
    finally:
        hook.remove()
