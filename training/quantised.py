"""Linear layers trained to be computed in 8 bits (Jacob et al., CVPR 2018).

Weights get a scale for each output, activations one fixed range for the layer, found on training data. Fixed,
because a range taken from the batch would make a row's result depend on the other rows; and because products
of integers are exact, a row's result is then the same bit for bit in any batch.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn import functional

WEIGHT_LEVELS, ACTIVATION_LEVELS = 127, 255
Mode = Literal["float", "watching", "eight bits"]

TAIL = 1e-5
"""Share of the activations beyond each end of the range; they are clipped."""

WATCHED_NUMBERS = 1 << 18
"""At most so many numbers of a layer's input are looked at; sorting more of them takes seconds a step."""


class QuantisedLinear(nn.Module):
    """A linear layer in one of three modes: as it was, watching its inputs, or as if in 8 bits.

    Gradients pass the rounding as if it were not there, and stop at what is clipped.
    """

    low: torch.Tensor
    high: torch.Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.mode: Mode = "float"
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[.., inputs] -> [.., outputs]."""
        if self.mode == "watching":
            ends = torch.tensor([TAIL, 1 - TAIL])
            sample = x.detach().flatten()
            sample = sample[:: 1 + len(sample) // WATCHED_NUMBERS].float()
            low, high = torch.quantile(sample, ends)
            self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        if self.mode != "eight bits":
            return functional.linear(x, self.weight, self.bias)
        return functional.linear(self._activation(x), self._weight(), self.bias)

    @property
    def activation_scale(self) -> torch.Tensor:
        """Of one level of the input."""
        return (self.high - self.low).clamp_min(1e-6) / ACTIVATION_LEVELS

    @property
    def zero_point(self) -> torch.Tensor:
        """The level that stands for 0."""
        return torch.round(-self.low / self.activation_scale).clamp(0, ACTIVATION_LEVELS)

    @property
    def weight_scale(self) -> torch.Tensor:
        """Of one level of the weights, [outputs]."""
        return self.weight.abs().amax(dim=1).clamp_min(1e-12) / WEIGHT_LEVELS

    def _activation(self, x: torch.Tensor) -> torch.Tensor:
        scale, zero = self.activation_scale, self.zero_point
        wide = x.float()
        clipped = wide.clamp(float(-zero * scale), float((ACTIVATION_LEVELS - zero) * scale))
        return clipped + (torch.round(clipped / scale) * scale - clipped).detach()

    def _weight(self) -> torch.Tensor:
        scale = self.weight_scale[:, None].detach()
        return self.weight + (torch.round(self.weight / scale) * scale - self.weight).detach()


def quantise_linears(module: nn.Module, *, inside: tuple[str, ...]) -> list[QuantisedLinear]:
    """Replace the linear layers whose names begin with one of `inside`; returns them."""
    replaced = []
    for name, child in list(module.named_modules()):
        if isinstance(child, nn.Linear) and name.startswith(inside):
            parent_name, _, last = name.rpartition(".")
            layer = QuantisedLinear(child)
            setattr(module.get_submodule(parent_name), last, layer)
            replaced.append(layer)
    return replaced
