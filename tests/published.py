"""Published detectors as their papers and repositories describe them: networks whose tensors have
the published names, with random weights.

None is an original file. Each network computes the two outputs, [real, fake], of normalised images.
"""

import itertools
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModel, DINOv3ViTConfig, DINOv3ViTModel

CLIP_STATISTICS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF_STATISTICS = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

NARROW_CLIP = {
    "name": "vit_base_patch32_clip_quickgelu_224",
    "size": 96,
    "patch_size": 32,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 2,
}
"""The settings of a backbone as wide as `tower`."""


def tower() -> CLIPVisionModel:
    """CLIP's vision tower in Hugging Face's names."""
    return CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=24,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=96,
            patch_size=32,
            hidden_act="quick_gelu",
        )
    )


def lively(model: nn.Module, gain: float) -> nn.Module:
    """The network with norms and running statistics that matter, for evaluation.

    Args:
        gain: of the norms: too large a one makes the logits of a deep network depend on rounding.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, gain - 0.2, gain + 0.2)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.1)  # pyright: ignore[reportArgumentType]
            nn.init.uniform_(module.running_var, 0.8, 1.2)  # pyright: ignore[reportArgumentType]
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return model.eval()


def noisy(model: nn.Module) -> nn.Module:
    """The network with every parameter drawn anew, for evaluation."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


class LinearProbe(nn.Module):
    """GenD's head: a linear layer on the feature divided by its L2 norm."""

    def __init__(self, width: int, normalised: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2)
        self.normalised = normalised

    def forward(self, feature: Tensor) -> Tensor:
        return self.linear(functional.normalize(feature, dim=1) if self.normalised else feature)


class Gend(nn.Module):
    """GenD: an encoder under `feature_extractor`, and its head under `model`."""

    def __init__(self, encoder: nn.Module, width: int, normalised: bool = True) -> None:
        super().__init__()
        self.feature_extractor = encoder
        self.model = LinearProbe(width, normalised)

    def forward(self, image: Tensor) -> Tensor:
        return self.model(self.feature_extractor(image))


class ClipEncoder(nn.Module):
    """CLIP with the projection that GenD keeps and does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.vision_model = tower()
        self.visual_projection = nn.Linear(24, 16, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        return self.vision_model(image).pooler_output


class DinoEncoder(nn.Module):
    """DINOv3 in Hugging Face's names; the feature is the class token."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = DINOv3ViTModel(
            DINOv3ViTConfig(
                hidden_size=32,
                intermediate_size=128,
                num_hidden_layers=2,
                num_attention_heads=2,
                image_size=64,
                patch_size=16,
                num_register_tokens=4,
            )
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.backbone(image).last_hidden_state[:, 0]


class PerceptionEncoder(nn.Module):
    """timm's Perception Encoder of a larger grid than its images have, without its head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone: Any = timm.create_model(
            "vit_pe_core_large_patch14_336",
            img_size=84,
            embed_dim=32,
            depth=2,
            num_heads=2,
            attn_pool_num_heads=2,
            dynamic_img_size=True,
        )
        self.backbone.head = nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        return self.backbone(image)


class DeepfakeBenchClip(nn.Module):
    """DeepfakeBench's CLIP: the tower under `backbone`, and a plain linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone: nn.Module = tower()
        self.head = nn.Linear(24, 2)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.backbone(image).pooler_output)


class DecomposedLinear(nn.Module):
    """Effort's layer: a frozen weight of low rank, and U diag(S) V that is trained beside it."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        u, s, v = torch.linalg.svd(layer.weight.detach())
        self.weight_main = nn.Parameter(u[:, :-1] @ s[:-1].diag() @ v[:-1], requires_grad=False)
        self.S_residual = nn.Parameter(s[-1:] * 1.5)
        self.U_residual = nn.Parameter(u[:, -1:].clone())
        self.V_residual = nn.Parameter(v[-1:].clone())
        self.U_r, self.S_r, self.V_r = (
            nn.Parameter(part) for part in (u[:, :-1].clone(), s[:-1].clone(), v[:-1].clone())
        )
        self.bias = layer.bias

    def forward(self, feature: Tensor) -> Tensor:
        residual = self.U_residual @ self.S_residual.diag() @ self.V_residual
        return functional.linear(feature, self.weight_main + residual, self.bias)


class Effort(DeepfakeBenchClip):
    """Effort: DeepfakeBench's CLIP with decomposed attention."""

    def decompose(self) -> "Effort":
        for name, layer in list(self.backbone.named_modules()):
            if isinstance(layer, nn.Linear) and ".self_attn." in name:
                self.backbone.set_submodule(name, DecomposedLinear(layer))
        return self


class SeparableConv(nn.Module):
    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False)
        self.pointwise = nn.Conv2d(inner, outer, 1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        return self.pointwise(self.conv1(image))


class XceptionBlock(nn.Module):
    """Separable convolutions, each behind a ReLU, beside a shortcut."""

    def __init__(self, widths: list[int], stride: int, begins_with_relu: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inner, outer in itertools.pairwise(widths):
            layers += [nn.ReLU(), SeparableConv(inner, outer), nn.BatchNorm2d(outer)]
        layers = layers if begins_with_relu else layers[1:]
        if stride > 1:
            layers.append(nn.MaxPool2d(3, stride, 1))
        self.rep = nn.Sequential(*layers)
        self.changes = stride > 1
        if self.changes:
            self.skip = nn.Conv2d(widths[0], widths[-1], 1, stride, bias=False)
            self.skipbn = nn.BatchNorm2d(widths[-1])

    def forward(self, image: Tensor) -> Tensor:
        return self.rep(image) + (self.skipbn(self.skip(image)) if self.changes else image)


class XceptionBody(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 32, 3, 2, bias=False), nn.BatchNorm2d(32)
        self.conv2, self.bn2 = nn.Conv2d(32, 64, 3, bias=False), nn.BatchNorm2d(64)
        self.block1 = XceptionBlock([64, 128, 128], 2, begins_with_relu=False)
        self.block2 = XceptionBlock([128, 256, 256], 2)
        self.block3 = XceptionBlock([256, 728, 728], 2)
        for number in range(4, 12):
            self.add_module(f"block{number}", XceptionBlock([728] * 4, 1))
        self.block12 = XceptionBlock([728, 728, 1024], 2)
        self.conv3, self.bn3 = SeparableConv(1024, 1536), nn.BatchNorm2d(1536)
        self.conv4, self.bn4 = SeparableConv(1536, 2048), nn.BatchNorm2d(2048)
        self.last_linear = nn.Linear(2048, 2)
        self.adjust_channel = nn.Sequential(nn.Conv2d(2048, 512, 1), nn.BatchNorm2d(512))

    def forward(self, image: Tensor) -> Tensor:
        feature = self.bn1(self.conv1(image)).relu()
        feature = self.bn2(self.conv2(feature)).relu()
        for number in range(1, 13):
            feature = self.get_submodule(f"block{number}")(feature)
        feature = self.bn3(self.conv3(feature)).relu()
        feature = self.bn4(self.conv4(feature)).relu()
        return self.last_linear(feature.mean((2, 3)))


class Xception(nn.Module):
    """DeepfakeBench's Xception, with the layers of another mode that it keeps and does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = XceptionBody()

    def forward(self, image: Tensor) -> Tensor:
        return self.backbone(image)


STAGES = (
    (2, 3, 1, 1, 24, (1, 1)),
    (4, 3, 2, 6, 32, (0, 1)),
    (4, 5, 2, 6, 56, (2, 2)),
    (6, 3, 2, 6, 112, (0, 1)),
    (6, 5, 1, 6, 160, (2, 2)),
    (8, 5, 2, 6, 272, (1, 2)),
    (2, 3, 1, 6, 448, (1, 1)),
)
"""EfficientNet-B4: by stage the number of blocks, kernel, stride, expansion, width, and the padding
of the first block that TensorFlow's rule gives for images of 380 pixels.
"""


class MbConv(nn.Module):
    """A block of efficientnet_pytorch, in its names."""

    def __init__(
        self, inner: int, outer: int, kernel: int, stride: int, factor: int, around: tuple[int, int]
    ) -> None:
        super().__init__()
        wide, squeezed = inner * factor, max(1, inner // 4)
        if factor > 1:
            self._expand_conv = nn.Conv2d(inner, wide, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(wide, eps=1e-3)
        self._depthwise_conv = nn.Conv2d(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = nn.BatchNorm2d(wide, eps=1e-3)
        self._se_reduce = nn.Conv2d(wide, squeezed, 1)
        self._se_expand = nn.Conv2d(squeezed, wide, 1)
        self._project_conv = nn.Conv2d(wide, outer, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outer, eps=1e-3)
        self.around, self.expands = (*around, *around), factor > 1
        self.adds = stride == 1 and inner == outer

    def forward(self, image: Tensor) -> Tensor:
        wide = functional.silu(self._bn0(self._expand_conv(image))) if self.expands else image
        wide = self._depthwise_conv(functional.pad(wide, self.around))
        wide = functional.silu(self._bn1(wide))
        squeezed = functional.silu(self._se_reduce(wide.mean((2, 3), keepdim=True)))
        wide = wide * self._se_expand(squeezed).sigmoid()
        out = self._bn2(self._project_conv(wide))
        return out + image if self.adds else out


class EfficientNetBody(nn.Module):
    """efficientnet_pytorch's EfficientNet-B4 with a first convolution that does not pad."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(3, 48, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(48, eps=1e-3)
        blocks, inner = [], 48
        for count, kernel, stride, factor, width, around in STAGES:
            same = (kernel // 2, kernel // 2)
            blocks.append(MbConv(inner, width, kernel, stride, factor, around))
            blocks += [MbConv(width, width, kernel, 1, factor, same) for _ in range(count - 1)]
            inner = width
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(inner, 1792, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1792, eps=1e-3)

    def forward(self, image: Tensor) -> Tensor:
        feature = functional.silu(self._bn0(self._conv_stem(image)))
        for block in self._blocks:
            feature = block(feature)
        return functional.silu(self._bn1(self._conv_head(feature))).mean((2, 3))


class EfficientNetWrapper(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.efficientnet = EfficientNetBody()
        self.last_layer = nn.Linear(1792, 2)

    def forward(self, image: Tensor) -> Tensor:
        return self.last_layer(self.efficientnet(image))


class EfficientNetB4(nn.Module):
    """DeepfakeBench's EfficientNet-B4."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = EfficientNetWrapper()

    def forward(self, image: Tensor) -> Tensor:
        return self.backbone(image)
