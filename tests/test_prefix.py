import contextlib
import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fmsd.models.detector import Detector, detector
from fmsd.models.prefix import Prefix, frozen
from fmsd.peft.fmsd import fmsd
from fmsd.peft.full import full
from fmsd.peft.lora import lora
from fmsd.peft.norm import norm
from fmsd.peft.probe import probe
from tests.conftest import tiny_vit

PASSES = 3
IMAGE = 64


class Case(NamedTuple):
    """A model, a method, and layers by whether they are computed once or in every pass."""

    build: Callable[[], Detector]
    method: Callable[[Detector], object]
    once: tuple[str, ...]
    always: tuple[str, ...]


def subspaces(pattern: str) -> Callable[[Detector], object]:
    return functools.partial(fmsd, patterns=[pattern], subspaces=2, directions=1)


def updates(*patterns: str) -> Callable[[Detector], object]:
    return functools.partial(lora, patterns=patterns, rank=2, alpha=4)


VIT = functools.partial(tiny_vit, img_size=IMAGE, depth=3)
SMALL = {"img_size": IMAGE, "patch_size": 16, "embed_dim": 24, "depth": 3, "num_heads": 2}
SWIN = {
    "img_size": IMAGE,
    "window_size": 4,
    "embed_dim": 24,
    "depths": (1, 2),
    "num_heads": (2, 2),
    "drop_path_rate": 0.0,
}
HIERA = {"embed_dim": 16, "num_heads": 1, "stages": (1, 1, 1, 1), "img_size": (IMAGE, IMAGE)}
BEIT = functools.partial(detector, "beit_base_patch16_224", IMAGE, **SMALL)
EVA = functools.partial(detector, "eva02_tiny_patch14_224", IMAGE, **SMALL)
SWIN_V1 = functools.partial(detector, "swin_tiny_patch4_window7_224", IMAGE, **SWIN)
SWIN_V2 = functools.partial(detector, "swinv2_tiny_window8_256", IMAGE, **SWIN)
HIERA_TINY = functools.partial(detector, "hiera_tiny_224", IMAGE, **HIERA)
EFFICIENTNET = functools.partial(detector, "test_efficientnet", IMAGE)
RESNET = functools.partial(
    detector, "resnet50", IMAGE, layers=(1, 1, 1, 1), channels=(8, 8, 16, 16)
)

CASES = {
    "vit-fmsd": Case(
        VIT,
        subspaces("blocks.1.attn.*"),
        ("patch_embed.proj", "blocks.0.mlp.fc2", "blocks.1.norm1"),
        ("blocks.1.norm2",),
    ),
    "vit-lora": Case(
        VIT,
        updates("blocks.2.mlp.*"),
        ("blocks.1.mlp.fc2", "blocks.2.attn.proj", "blocks.2.norm2"),
        ("norm",),
    ),
    "vit-probe": Case(
        VIT, probe, ("patch_embed.proj", "blocks.0.norm1", "blocks.2.mlp.fc2", "norm"), ("head",)
    ),
    "vit-norm": Case(VIT, norm, ("patch_embed.proj",), ("blocks.0.norm1", "blocks.0.attn.qkv")),
    "vit-full": Case(VIT, full, (), ("patch_embed.proj", "blocks.0.norm1", "head")),
    "beit-lora": Case(
        BEIT,
        updates("blocks.2.attn.*"),
        ("patch_embed.proj", "blocks.1.mlp.fc2"),
        ("blocks.2.mlp.fc1",),
    ),
    "eva-fmsd": Case(
        EVA, subspaces("blocks.2.*"), ("patch_embed.proj", "blocks.1.attn.proj"), ("head",)
    ),
    "swin-fmsd": Case(
        SWIN_V1,
        subspaces("layers.1.blocks.1.*"),
        ("patch_embed.proj", "layers.1.blocks.0.mlp.fc2"),
        ("norm",),
    ),
    "swin-probe": Case(
        SWIN_V1, probe, ("patch_embed.proj", "layers.1.blocks.1.mlp.fc2", "norm"), ("head.fc",)
    ),
    "swinv2-lora": Case(
        SWIN_V2, updates("layers.1.*"), ("patch_embed.proj", "layers.0.blocks.0.mlp.fc2"), ("norm",)
    ),
    "hiera-lora": Case(
        HIERA_TINY, updates("blocks.3.*"), ("patch_embed.proj", "blocks.2.mlp.fc2"), ("head.fc",)
    ),
    "efficientnet-lora": Case(
        EFFICIENTNET,
        updates("conv_head"),
        ("conv_stem", "blocks.0.0.conv", "blocks.3.0.conv_dw"),
        ("bn2",),
    ),
    "efficientnet-norm": Case(EFFICIENTNET, norm, ("conv_stem",), ("bn1", "blocks.0.0.conv")),
    "efficientnet-probe": Case(
        EFFICIENTNET, probe, ("conv_stem", "blocks.0.0.conv", "blocks.3.0.conv_dw"), ("classifier",)
    ),
    "resnet-fmsd": Case(
        RESNET,
        subspaces("layer3.*"),
        ("conv1", "layer1.0.conv2", "layer2.0.bn3"),
        ("layer4.0.conv2", "layer3.0.conv2"),
    ),
    "resnet-full": Case(RESNET, full, (), ("conv1", "bn1", "fc")),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
Result = list[dict[str, Tensor]]


def run(
    model: nn.Module,
    image: Tensor,
    memory: Prefix | None,
    before: Callable[[nn.Module, int], object] = lambda model, index: None,
    precision: Callable[[int], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
    inside: bool = True,
) -> Result:
    """The outputs, gradients and buffers of passes between which all trainable parameters move; the
    backward pass is inside the block or not.
    """
    noise, results = torch.Generator().manual_seed(1), []
    for index in range(PASSES):
        before(model, index)
        with contextlib.ExitStack() as stack:
            if memory is not None:
                stack.enter_context(memory)
            with precision(index):
                output = model(image)
            loss = output.float().square().mean() + output.float().mean()
            if inside:
                loss.backward()
        if not inside:
            loss.backward()
        found = {
            name: parameter.grad
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        }
        results.append(
            {
                "output": output.detach().clone(),
                **found,
                **{name: buffer.clone() for name, buffer in model.named_buffers()},
            }
        )
        model.zero_grad()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn(parameter.shape, generator=noise))
    return results


def check_equal(found: Result, expected: Result) -> None:
    for index, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert one.keys() == other.keys()
        for name, tensor in other.items():
            assert torch.equal(one[name], tensor), (index, name)


def check_clean(model: nn.Module) -> None:
    assert not [name for name, module in model.named_modules() if "forward" in module.__dict__]


@contextlib.contextmanager
def counted(model: nn.Module) -> Iterator[dict[str, int]]:
    """Counts how often every module computes."""
    counts, overrides = {}, {}

    def count(name: str, forward: Callable[..., object], *args: object, **kwargs: object) -> object:
        counts[name] += 1
        return forward(*args, **kwargs)

    for name, module in model.named_modules():
        counts[name] = 0
        module.__dict__["forward"] = overrides[name] = functools.partial(
            count, name, module.forward
        )
    yield counts
    for name, module in model.named_modules():
        assert module.__dict__.pop("forward") is overrides[name]


def check(model: nn.Module, image: Tensor, **options: Any) -> dict[str, int]:
    """Passes with a memory give what passes without one give, random numbers included; returns how
    often every module computed.
    """
    twin, other, state = copy.deepcopy(model), copy.deepcopy(model), torch.get_rng_state()
    expected = run(twin, image.clone(), None, **options)
    assert any(not torch.equal(expected[0]["output"], later["output"]) for later in expected[1:])
    end = torch.get_rng_state()
    torch.set_rng_state(state)
    check_equal(run(other, image.clone(), Prefix(frozen(other)), **options), expected)
    assert torch.equal(torch.get_rng_state(), end)
    check_clean(other)
    torch.set_rng_state(state)
    with counted(model) as counts:
        check_equal(run(model, image.clone(), Prefix(frozen(model)), **options), expected)
    return counts


def adapted(case: Case) -> tuple[Detector, Tensor]:
    model = case.build()
    case.method(model)
    with torch.no_grad():  # a norm of weight zero or a fresh update would hide what is below it
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.train(), torch.rand(2, 3, IMAGE, IMAGE)


@every_case
@pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
def test_passes_equal_those_without_reuse_and_compute_what_is_frozen_once(
    case: Case, inside: bool
) -> None:
    model, image = adapted(case)
    counts = check(model, image, inside=inside)
    assert {name: counts[f"backbone.{name}"] for name in case.once} == dict.fromkeys(case.once, 1)
    assert {name: counts[f"backbone.{name}"] for name in case.always} == dict.fromkeys(
        case.always, PASSES
    )


@pytest.mark.parametrize(
    "case",
    [CASES[name] for name in ("vit-fmsd", "swinv2-lora", "efficientnet-lora", "resnet-fmsd")],
)
def test_a_memory_is_of_one_precision(case: Case) -> None:
    model, image = adapted(case)

    def low(index: int) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16)

    counts = check(model, image, precision=low)
    assert {name: counts[f"backbone.{name}"] for name in case.once} == dict.fromkeys(case.once, 1)
    counts = check(
        model,
        image,
        precision=lambda index: torch.autocast("cpu", torch.bfloat16, enabled=index != 1),
    )
    assert {name: counts[f"backbone.{name}"] for name in case.once} == dict.fromkeys(
        case.once, 2
    )  # the second pass is of another precision


# ---- random numbers


def dropping(model: Detector) -> Detector:
    """With a dropout inside of the middle one of three frozen blocks."""
    model.backbone.blocks[1].mlp.drop1.p = 0.5  # pyright: ignore
    return model


@pytest.mark.parametrize("restored", [False, True])
def test_what_may_depend_on_random_numbers_is_computed_in_every_pass(restored: bool) -> None:
    model = dropping(VIT())
    subspaces("blocks.2.mlp.*")(model)
    state = torch.get_rng_state()
    counts = check(
        model.train(),
        torch.rand(2, 3, IMAGE, IMAGE),
        before=lambda *_: torch.set_rng_state(state) if restored else None,
    )
    assert counts["backbone.patch_embed.proj"] == counts["backbone.blocks.0.mlp.fc1"] == 1
    assert counts["backbone.blocks.1.attn.qkv"] == counts["backbone.blocks.2.attn.qkv"] == PASSES


def test_dropout_that_is_switched_off_is_no_random_number() -> None:
    model = dropping(VIT())
    subspaces("blocks.2.mlp.*")(model)
    assert check(model.eval(), torch.rand(2, 3, IMAGE, IMAGE))["backbone.blocks.2.attn.qkv"] == 1


class Net(nn.Module):
    """Frozen layers a, b and c, then a trainable one; what happens between them is a function of
    the net and the image.
    """

    def __init__(self, between: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.between = between
        self.a, self.b, self.c = (nn.Linear(6, 6).requires_grad_(False) for _ in range(3))
        self.d = nn.Linear(6, 6)
        self.passes = 0
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return self.d(self.between(self, x))


def computed(net: Net, **options: Any) -> list[int]:
    counts = check(net, torch.randn(4, 6), **options)
    assert counts["d"] in (PASSES, 2 * PASSES)
    return [counts[name] for name in "abc"]


def test_random_numbers_of_plain_functions_count_too() -> None:
    assert computed(Net(lambda net, x: net.c(functional.dropout(net.a(x), 0.5)) + net.b(x))) == [
        1,
        PASSES,
        PASSES,
    ]
    assert computed(Net(lambda net, x: net.c(net.b(net.a(functional.dropout(x)))))) == [PASSES] * 3


def with_own_generator_state(net: Net, x: Tensor) -> Tensor:
    """Draws, and puts the generator back before the next module."""
    state = torch.get_rng_state()
    y = net.b(functional.dropout(net.a(x), 0.5))
    torch.set_rng_state(state)
    return net.c(y)


def test_a_generator_that_is_put_back_hides_no_random_number() -> None:
    assert computed(Net(with_own_generator_state), before=lambda *_: torch.rand(1)) == [
        1,
        PASSES,
        PASSES,
    ]


# ---- changes in place


def moved_in_third_pass(net: Net, x: Tensor) -> Tensor:
    """The output of a changes in place in the second pass only, as data-dependent code may do."""
    h = net.a(x)
    y = net.b(h)
    if net.passes == 2:
        h.mul_(2)
    return net.c(h) + y


class Inside(nn.Module):
    """Changes its input before it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.relu_())


class Same(nn.Module):
    """Gives its input back, or a view of it; the parameter makes it a layer."""

    def __init__(self, view: bool) -> None:
        super().__init__()
        self.view = view
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x.view(2, 2, 6).transpose(0, 1) if self.view else x


IN_PLACE: dict[str, tuple[Callable[[], Net], list[int]]] = {
    "nothing": (lambda: Net(lambda net, x: net.c(net.b(net.a(x)))), [1, 1, 1]),
    "between frozen modules": (
        lambda: Net(lambda net, x: net.c(net.b(net.a(x).relu_()))),
        [PASSES, 1, 1],
    ),
    "at the border": (lambda: Net(lambda net, x: net.c(net.b(net.a(x))).relu_()), [1, 1, PASSES]),
    "after use": (
        lambda: Net(lambda net, x: (h := net.a(x), net.b(h), h.mul_(2))[1] + net.c(h)),
        [PASSES, 1, 1],
    ),
    "of a view": (
        lambda: Net(lambda net, x: (h := net.a(x), h[:, :3].zero_(), net.c(net.b(h)))[2]),
        [PASSES, 1, 1],
    ),
    "of a detached alias": (
        lambda: Net(lambda net, x: (h := net.a(x), h.detach().zero_(), net.c(net.b(h)))[2]),
        [PASSES, 1, 1],
    ),
    "of a shape": (
        lambda: Net(lambda net, x: net.c(net.b(net.a(x).unsqueeze_(0).add(1)))[0]),
        [PASSES, 1, 1],
    ),
    "inside of a module": (
        lambda: Net(lambda net, x: (h := net.a(x), net.b(h) + net.c(h))[1], b=Inside()),
        [PASSES, PASSES, 1],
    ),
    "by a trainable value": (
        lambda: Net(lambda net, x: net.c(net.a(x).add_(net.d.bias)) + net.b(x)),
        [PASSES, 1, PASSES],
    ),
    "in the second pass": (lambda: Net(moved_in_third_pass), [2, 1, 2]),
    "of an identity": (
        lambda: Net(lambda net, x: net.c(net.b(net.a(x)).relu_()), b=Same(False)),
        [PASSES, PASSES, 1],
    ),
    "of an identity's input": (
        lambda: Net(
            lambda net, x: (h := net.a(x), y := net.b(h), h.relu_(), net.c(y))[3], b=Same(False)
        ),
        [3, 3, 1],
    ),
    "beside an identity": (
        lambda: Net(lambda net, x: net.c(net.b(net.a(x)) * 2), b=Same(False)),
        [1, 1, 1],
    ),
    "of a module's view": (
        lambda: Net(lambda net, x: (h := net.a(x), net.b(h).relu_(), net.c(h))[2], b=Same(True)),
        [PASSES, PASSES, 1],
    ),
    "beside a module's view": (
        lambda: Net(lambda net, x: net.c(net.b(net.a(x)).flatten(0, 1)), b=Same(True)),
        [1, 1, 1],
    ),
    "of the image": (
        lambda: Net(lambda net, x: net.c(net.b(x)) + net.a(x.mul_(1.5)), b=Same(False)),
        [PASSES, PASSES, PASSES],
    ),
    "of a graph": (
        lambda: Net(lambda net, x: net.c(net.b(net.a(x).requires_grad_()))),
        [PASSES] * 3,
    ),
}


@pytest.mark.parametrize(("build", "expected"), IN_PLACE.values(), ids=IN_PLACE.keys())
def test_outputs_that_change_in_place_are_computed_again(
    build: Callable[[], Net], expected: list[int]
) -> None:
    assert computed(build()) == expected


# ---- what a block does to the modules, and when it records


class FailureError(Exception):
    pass


def check_fresh(model: nn.Module, memory: Prefix, image: Tensor, **once: int) -> None:
    """Passes with a memory equal those without, and each of the named layers computes so many times
    in them.
    """
    check_clean(model)
    expected = run(copy.deepcopy(model), image.clone(), None)
    with counted(model) as counts:
        check_equal(run(model, image, memory), expected)
    assert {name: counts[name] for name in once} == once


def test_a_first_pass_that_raises_leaves_nothing_and_the_next_one_records() -> None:
    net, x = Net(lambda net, x: net.c(net.b(net.a(x)))), torch.randn(4, 6)
    memory = Prefix(frozen(net))
    with pytest.raises(FailureError), memory:
        net.b(net.a(2 * x))
        raise FailureError
    check_fresh(net, memory, x, a=1, b=1, c=1)
    # Inside of a module, too; and a later pass that raises takes nothing away.
    net.b.register_forward_hook(lambda *_: (_ for _ in ()).throw(FailureError()))
    memory = Prefix(frozen(net))
    for _ in range(2):
        with pytest.raises(FailureError), memory:
            net(x)
    check_clean(net)
    net.b._forward_hooks.clear()
    check_fresh(net, memory, x, a=1, b=1, c=1)
    net.d.register_forward_hook(lambda *_: (_ for _ in ()).throw(FailureError()))
    with pytest.raises(FailureError), memory:
        net(x)
    net.d._forward_hooks.clear()
    check_fresh(net, memory, x, a=0, b=0, c=0)


def test_a_module_that_fails_inside_of_a_block_can_be_called_again_in_it() -> None:
    net, x = Net(lambda net, x: net.c(net.b(net.a(x)))), torch.randn(4, 6)
    wrong, memory = torch.randn(4, 5), Prefix(frozen(net))
    with memory:
        with pytest.raises(RuntimeError, match="shapes"):
            net.a(wrong)
        net(x)
    with counted(net) as counts, memory:
        with pytest.raises(RuntimeError, match="shapes"):
            net.a(wrong)
        net(x)
    assert counts == {"": 1, "a": 1, "b": 0, "c": 0, "d": 1}


def test_passes_without_gradients_record_and_replay_nothing() -> None:
    net, x = Net(lambda net, x: net.c(net.b(net.a(x)))), torch.randn(4, 6)
    memory = Prefix(frozen(net))
    with memory, torch.no_grad():
        net.b(net.d(x))  # does not require grad here, though it depends on what learns
    check_fresh(net, memory, x, a=1, b=1, c=1)
    with counted(net) as counts, memory, torch.no_grad():
        net(x)
    assert counts["a"] == counts["b"] == counts["c"] == 1
    with memory, torch.inference_mode():
        net(x)
    check_fresh(net, memory, x, a=0, b=0, c=0)


def test_an_input_that_requires_a_gradient_gets_it() -> None:
    net, x = Net(lambda net, x: net.c(net.b(net.a(x)))), torch.randn(4, 6)
    memory = Prefix(frozen(net))
    check_fresh(net, memory, x, a=1, b=1, c=1)
    x.requires_grad_()
    with memory:
        net(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_inference_tensors_can_go_in() -> None:
    net = Net(lambda net, x: net.c(net.b(net.a(x) + 1)), a=Same(False))
    with torch.inference_mode():
        x = torch.randn(4, 6)
    check_fresh(net, Prefix(frozen(net)), x, a=PASSES, b=1, c=1)


def test_one_block_at_a_time() -> None:
    net, x = Net(lambda net, x: net.c(net.b(net.a(x)))), torch.randn(4, 6)
    memory, other = Prefix(frozen(net)), Prefix(frozen(net))
    for second in (memory, other):
        with memory:
            with pytest.raises(RuntimeError, match="leave it"):
                second.__enter__()
            net(x)
        check_fresh(net, memory, x, a=0, b=0, c=0)


def test_an_override_that_was_there_is_put_back() -> None:
    net, x = Net(lambda net, x: net.c(net.b(net.a(x)))), torch.randn(4, 6)
    doubled = net.a.__dict__["forward"] = lambda x: functional.linear(x, 2 * net.a.weight)
    expected, memory = net(x), Prefix(frozen(net))
    for _ in range(2):
        with memory:
            assert torch.equal(net(x), expected)
        assert net.a.forward is doubled


def test_another_input_shape_mode_or_weight_is_seen() -> None:
    net, x = Net(lambda net, x: net.c(net.b(net.a(x)))), torch.randn(4, 6)
    memory = Prefix(frozen(net))
    check_fresh(net, memory, x, a=1, b=1, c=1)
    check_fresh(net, memory, x[:2], a=PASSES, b=PASSES, c=PASSES)
    with torch.no_grad():
        net.b.weight.mul_(2)
    check_fresh(net, memory, x, a=1, b=1, c=1)
    check_fresh(net.eval(), memory, x, a=1, b=1, c=1)
    for _ in range(2):
        net.b.bias = nn.Parameter(net.b.bias + 1, requires_grad=False)
        check_fresh(net, memory, x, a=1, b=1, c=1)
    net.b.bias.requires_grad_()  # and moves from now on
    check_fresh(net, memory, x, a=PASSES, b=PASSES, c=PASSES)


# ---- kinds of modules


def test_modules_with_statistics_that_move_are_computed_in_every_pass() -> None:
    net = Net(lambda net, x: net.c(net.b(net.a(x))), b=nn.BatchNorm1d(6).requires_grad_(False))
    assert computed(net) == [PASSES] * 3
    assert computed(net.eval()) == [1, 1, 1]
    # Each pass changes the weight that the next one has.
    assert (
        computed(
            Net(
                lambda net, x: net.c(net.b(net.a(x))),
                b=nn.utils.spectral_norm(nn.Linear(6, 6)).requires_grad_(False),
            )
        )
        == [PASSES] * 3
    )


def test_a_module_is_called_several_times() -> None:
    assert computed(Net(lambda net, x: net.c(net.a(net.b(net.a(x)))))) == [2, 1, 1]
    # The second call comes after what learns, the third one before: counts stay in step.
    assert computed(
        Net(lambda net, x: net.a(x) * net.a(net.b(x) * net.d.bias) + net.a(net.c(x)))
    ) == [2 + PASSES, 1, 1]


def test_a_module_of_two_places_is_one() -> None:
    net = Net(lambda net, x: net.b(net.a(x)) + net.a(net.c(x)))
    net.b = nn.Sequential(nn.Linear(6, 6).requires_grad_(False), net.a)  # has a in it
    assert [*frozen(net)] == [net.a, net.b, net.c]
    counts = check(net, torch.randn(4, 6))
    assert [counts[name] for name in ("a", "b", "c", "b.0")] == [3, 1, 1, 1]


class Many(nn.Module):
    """Takes and gives containers, with keywords."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6).requires_grad_(False)

    def forward(self, xs: list[Tensor], *, scale: dict[str, Any]) -> dict[str, Any]:
        return {
            "list": [self.layer(x) * scale["by"] for x in xs],
            "size": xs[0].shape,
            "none": None,
        }


def use_many(net: Net, x: Tensor) -> Tensor:
    found = net.b([net.a(x), x], scale={"by": 2.0})
    found["list"].append(x)  # what the caller does to a container stays with the caller
    assert len(found["list"]) == 3
    assert found["size"] == x.shape
    assert found["none"] is None
    return net.c(found["list"][0] + found["list"][1])


def test_containers_and_keywords() -> None:
    assert computed(Net(use_many, b=Many())) == [1, 1, 1]
    assert computed(
        Net(lambda net, x: net.c(net.b([x, net.d(x)], scale={"by": 1.0})["list"][0]), b=Many())
    ) == [0, PASSES, 1]
    changing = Net(
        lambda net, x: net.c(net.b([x], scale={"by": float(net.passes)})["list"][0]), b=Many()
    )
    with counted(changing) as counts:
        run(changing, torch.randn(4, 6), Prefix(frozen(changing)))
    assert counts["b"] == PASSES


class Opaque(nn.Module):
    """Hides a tensor, which depends on what learns, in an object."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6).requires_grad_(False)

    def forward(self, box: Net) -> Tensor:
        return self.layer(box.d.bias).detach()


def test_objects_that_may_hide_a_tensor_are_not_trusted() -> None:
    assert computed(Net(lambda net, x: net.b(net) + net.c(x), b=Opaque())) == [0, PASSES, 1]


def test_lists_of_modules_are_looked_into() -> None:
    net = Net(
        lambda net, x: net.c(net.b[1](net.b[0](net.a(x)))),
        b=nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)]).requires_grad_(False),
    )
    counts = check(net, torch.randn(4, 6))
    assert counts["b.0"] == counts["b.1"] == 1


def test_hooks_of_frozen_modules_run_in_every_pass() -> None:
    net = Net(lambda net, x: net.c(net.b(net.a(x))))
    net.b.register_forward_hook(lambda module, inputs, output: 2 * output)
    assert computed(net) == [1, 1, 1]


@pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
def test_activation_checkpoints(inside: bool) -> None:
    model, image = adapted(CASES["vit-fmsd"])
    model.backbone.set_grad_checkpointing()  # pyright: ignore
    counts = check(model, image, inside=inside)
    assert counts["backbone.blocks.0.mlp.fc2"] == 1
    assert counts["backbone.blocks.2.mlp.fc2"] > PASSES


def test_frozen_modules_are_the_largest_ones() -> None:
    model = VIT()
    full(model)
    assert frozen(model) == ()
    probe(model)
    backbone: Any = model.backbone
    assert frozen(model) == (backbone.patch_embed, backbone.blocks, backbone.norm)
    subspaces("blocks.1.attn.*")(model)
    block = backbone.blocks[1]
    assert frozen(model) == (
        backbone.patch_embed,
        backbone.blocks[0],
        block.norm1,
        block.norm2,
        block.mlp,
        backbone.blocks[2],
        backbone.norm,
    )
    model.requires_grad_(False)
    assert frozen(model) == (model,)
    memory = Prefix(())
    with memory, memory:
        assert model(torch.rand(1, 3, IMAGE, IMAGE)).shape == (1,)


def test_compiled_models_are_computed() -> None:
    net, x = Net(lambda net, x: net.c(net.b(net.a(x)))), torch.randn(4, 6)
    expected = run(copy.deepcopy(net), x, None)
    compiled = torch.compile(net, backend="eager")
    found = run(compiled, x, Prefix(frozen(net)))  # pyright: ignore
    check_clean(net)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one["output"], other["output"])
