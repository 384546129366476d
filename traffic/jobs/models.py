"""Models that are trained, as far as their traffic goes: the tensors of every layer, and its part of the work.

Parameters follow the models' published configurations, and their sums the published counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Layer:
    """The elements of a layer's tensors in the order in which they are registered; `work` is relative to other layers.

    `experts` are elements of a layer's experts, which are dealt out to ranks where the job does so.
    """

    name: str
    tensors: tuple[int, ...]
    work: float
    experts: int = 0

    @property
    def parameters(self) -> int:
        return sum(self.tensors)


@dataclass(frozen=True)
class Model:
    """`layers` in the order of the forward pass; the root unit of sharding is what is not in `blocks` of them.

    `hidden` is the width of what is passed from layer to layer, `chosen` how many experts see a token.
    """

    name: str
    layers: tuple[Layer, ...]
    hidden: int = 0
    chosen: int = 0

    @cached_property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @property
    def blocks(self) -> tuple[Layer, ...]:
        return tuple(layer for layer in self.layers if layer.name == "block")

    @property
    def active(self) -> float:
        """Return the parameters that a token meets."""
        idle = [layer.experts * (1 - self.chosen / 8) for layer in self.layers if layer.experts]
        return self.parameters - sum(idle)


def _transformer(
    name: str,
    h: int,
    layers: int,
    kv: int,
    feedforward: int,
    vocabulary: int,
    *,
    tied: bool = False,
    bias: bool = False,
) -> Model:
    """Llama and its kin: grouped attention, a gated feed-forward network, RMS norms."""
    attention = (h * h, h * kv, h * kv, h * h) if not bias else (h * h, h, h * kv, kv, h * kv, kv, h * h)
    block = (*attention, *[h * feedforward] * 3, h, h)
    return _stacked(name, h, layers, block, vocabulary, tied=tied)


def _stacked(
    name: str,
    h: int,
    layers: int,
    block: tuple[int, ...],
    vocabulary: int,
    *,
    tied: bool,
    experts: int = 0,
    chosen: int = 0,
) -> Model:
    work = sum(block) - experts * (1 - chosen / 8)
    blocks = [Layer("block", block, work, experts)] * layers
    head = (h,) if tied else (h, vocabulary * h)
    return Model(
        name, (Layer("embedding", (vocabulary * h,), 0), *blocks, Layer("head", head, vocabulary * h)), h, chosen
    )


def _mixtral() -> Model:
    h, kv, feedforward, experts = 4096, 1024, 14336, 8
    block = (h * h, h * kv, h * kv, h * h, h * experts, *[h * feedforward] * (3 * experts), h, h)
    return _stacked("mixtral", h, 32, block, 32000, tied=False, experts=3 * h * feedforward * experts, chosen=2)


def _gpt2() -> Model:
    h, positions, vocabulary = 768, 1024, 50257
    block = (h, h, 3 * h * h, 3 * h, h * h, h, h, h, 4 * h * h, 4 * h, 4 * h * h, h)
    embedding = Layer("embedding", (vocabulary * h, positions * h), 0)
    return Model(
        "gpt2-small", (embedding, *[Layer("block", block, sum(block))] * 12, Layer("head", (h, h), vocabulary * h)), h
    )


def _dit() -> Model:
    h = 1152
    embedding = (16 * h, h, 256 * h, h, h * h, h, 1001 * h)  # patches, times, classes; positions are not trained
    block = (3 * h * h, 3 * h, h * h, h, 4 * h * h, 4 * h, 4 * h * h, h, 6 * h * h, 6 * h)
    final = (32 * h, 32, 2 * h * h, 2 * h)
    blocks = [Layer("block", block, sum(block))] * 28
    return Model("dit-xl2", (Layer("embedding", embedding, 16 * h), *blocks, Layer("head", final, 32 * h)), h)


def _resnet50() -> Model:
    """torchvision's: convolutions are at work once for every place of what they put out."""

    def convolution(inputs: int, outputs: int, kernel: int, side: int) -> Layer:
        weights = inputs * outputs * kernel * kernel
        return Layer("convolution", (weights, outputs, outputs), weights * side * side)

    layers = [convolution(3, 64, 7, 112)]
    inputs = 64
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        side = 56 >> stage
        for block in range(blocks):
            before = side * 2 if stage and not block else side
            layers += [convolution(inputs, width, 1, before), convolution(width, width, 3, side)]
            layers += [convolution(width, 4 * width, 1, side)]
            if not block:
                layers.append(convolution(inputs, 4 * width, 1, side))
            inputs = 4 * width
    return Model("resnet50", (*layers, Layer("head", (2048 * 1000, 1000), 2048 * 1000)))


MODELS = {
    model.name: model
    for model in (
        _resnet50(),
        _gpt2(),
        _dit(),
        _transformer("llama3-8b", 4096, 32, 1024, 14336, 128256),
        _transformer("llama3-70b", 8192, 80, 1024, 28672, 128256),
        _transformer("llama3.2-3b", 3072, 28, 1024, 8192, 128256, tied=True),
        _transformer("qwen2.5-3b", 2048, 36, 256, 11008, 151936, tied=True, bias=True),
        _mixtral(),
    )
}
"""By name."""
