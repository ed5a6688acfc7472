"""The generator and its temporal variants: one network, with recurrent cells between its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from salema.export.graph.rewrite import (
    MEAN,
    MEAN_CHANNEL,
    CroppedLastUpConv,
    CroppedUpConv,
    TransposedUpConv,
    fold_mean,
    fold_upsampling,
)
from salema.export.weights.architecture import CLSTM56_END, ENCODER_END, FINAL_CONVS, LAYERS, Architecture
from salema.runtime.errors import UsageError
from salema.runtime.spec import SplitSpec, StateSpec

MEAN_BGR = (103.939, 116.779, 123.68)
LSTM_STATES = ("hidden", "cell")
_CONVOLUTIONS = (nn.Conv2d, CroppedUpConv, CroppedLastUpConv, TransposedUpConv)


class SaliencyStep(nn.Module):
    """One time step of any published variant, for N independent streams.

    Weights and the network's computations are in `dtype`. States, the recurrence and the final sigmoid stay float32: an
    FP16 average with a small coefficient stalls once a step is less than half a unit in the last place.

    Args:
        architecture: the variant.
        weights: the checkpoint's tensors by published key; they set the channel widths.
        dtype: float32 or float16; float64 for tests.
        rewrites: names of `rewrite.REWRITES` to apply.

    Raises:
        UsageError: there is no such rewrite, or a residual at a layer whose input and output differ in shape.
    """

    def __init__(
        self,
        architecture: Architecture,
        weights: Mapping[str, Tensor],
        dtype: torch.dtype = torch.float32,
        rewrites: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self._dtype = dtype
        self._state_dtype = torch.promote_types(dtype, torch.float32)
        end = CLSTM56_END if architecture.kind == "salclstm56" else len(LAYERS)
        self.salgan = nn.Sequential(*(_layer(kind, f"salgan.{i}", weights) for i, kind in enumerate(LAYERS[:end])))
        if architecture.kind.startswith("salclstm"):
            self.Gates = _conv("Gates", weights)
        if architecture.kind == "salclstm56":
            first, second, last = (_conv(f"final_convs.{index}", weights) for index in FINAL_CONVS)
            self.final_convs = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)
        self.load_state_dict(weights)
        self._check_residual()
        self._mean_is_folded = MEAN in rewrites
        self._rewrite(rewrites)
        self.to(dtype)
        self._mean: Tensor
        mean = torch.tensor(MEAN_BGR, dtype=self._state_dtype).view(1, 3, 1, 1)
        self.register_buffer("_mean", mean, persistent=False)

    def _rewrite(self, names: Sequence[str]) -> None:
        taken_apart = {place for location in self.architecture.ema_locs for place in (location, location + 1)}
        for name in names:
            if name == MEAN:
                first = self.salgan[0]
                assert isinstance(first, nn.Conv2d)
                self.salgan[0] = fold_mean(first, torch.tensor(MEAN_BGR, dtype=torch.float64))
            else:
                fold_upsampling(self.salgan, name, taken_apart)

    def forward(self, frame: Tensor, *states_and_mix: Tensor) -> tuple[Tensor, ...]:
        """Runs one step.

        Args:
            frame: uint8 BGR `[N, H, W, 3]`.
            states_and_mix: the states `[N, C, h, w]` float32 in the order of `state_specs`, then for an EMA `mix`
                `[N]` float32, the weight of the new frame.

        Returns:
            The sigmoid map `[N, 1, H, W]` float32, then the states after the step.
        """
        x = self.to_network(frame)
        if self.architecture.kind == "salgan":
            return (self.run_layers(x, 0, len(LAYERS)),)
        if self.architecture.kind == "salema":
            return self._salema(x, states_and_mix[:-1], states_and_mix[-1])
        return self._salclstm(x, *states_and_mix)

    def to_network(self, frame: Tensor) -> Tensor:
        """Subtracts the mean from a frame, uint8 BGR `[N, H, W, 3]`; returns `[N, 3, H, W]` in the network's dtype.

        If the first convolution subtracts the mean, the pixels stay as they are, and a fourth channel is added.
        """
        if self._mean_is_folded:
            pixels = frame.to(self._dtype).permute(0, 3, 1, 2)
            return nn.functional.pad(pixels, (0, 0, 0, 0, 0, 1), value=MEAN_CHANNEL)
        return (frame.to(self._state_dtype).permute(0, 3, 1, 2) - self._mean).to(self._dtype)

    def _salema(self, x: Tensor, states: tuple[Tensor, ...], mix: Tensor) -> tuple[Tensor, ...]:
        start, after = 0, []
        for location, state in zip(self.architecture.ema_locs, states, strict=True):
            entered = self.entering(self.run_layers(x, start, location))
            fresh = self.run_layers(entered, location, location + 1)
            averaged = ema(fresh.to(self._state_dtype), state, mix)
            if self.architecture.keeps_rectified(location):
                averaged = averaged.relu()
            after.append(averaged)
            x = averaged.to(self._dtype)
            if self.architecture.residual:
                x = x + (fresh if self.architecture.adds_rectified(location) else entered)
            start = location + 1 + self.architecture.keeps_rectified(location)
        saliency = self.run_layers(x, start, len(LAYERS)) if start < len(LAYERS) else after[-1]
        return (saliency, *after)

    def _salclstm(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, ...]:
        place = ENCODER_END if self.architecture.kind == "salclstm30" else CLSTM56_END
        x = self.run_layers(x, 0, place)
        gates = self.Gates(torch.cat([x, hidden.to(self._dtype)], 1)).to(self._state_dtype)
        remember_new, forget, out, candidate = gates.chunk(4, 1)
        cell = forget.sigmoid() * cell + remember_new.sigmoid() * candidate.tanh()
        hidden = out.sigmoid() * cell.tanh()
        decoder_input = cell.to(self._dtype)
        if self.architecture.residual:
            decoder_input = decoder_input + x
        if self.architecture.kind == "salclstm56":
            saliency = self.final_convs(decoder_input).to(self._state_dtype).sigmoid()
        else:
            saliency = self.run_layers(decoder_input, place, len(LAYERS))
        return saliency, hidden, cell

    def entering(self, x: Tensor) -> Tensor:
        """Returns what enters an averaged layer, `[N, C, h, w]`, of what comes from below; training drops some."""
        return x

    def run_layers(self, x: Tensor, start: int, end: int) -> Tensor:
        """Runs the layers from `start` up to `end`, not included."""
        for index in range(start, end):
            x = self.salgan[index](x.to(self._state_dtype) if LAYERS[index] == "S" else x)
        return x

    def state_specs(self, height: int, width: int) -> tuple[StateSpec, ...]:
        """Returns the recurrent states, with their shapes for frames of this size."""
        kind = self.architecture.kind
        if kind == "salema":
            return tuple(
                StateSpec(f"ema{location}", self._shape_after(location, height, width))
                for location in self.architecture.ema_locs
            )
        if kind == "salgan":
            return ()
        place = ENCODER_END if kind == "salclstm30" else CLSTM56_END
        shape = self._shape_after(place - 1, height, width)
        return tuple(StateSpec(name, shape) for name in LSTM_STATES)

    def _shape_after(self, location: int, height: int, width: int) -> tuple[int, int, int]:
        done = LAYERS[: location + 1]
        scale = 2 ** (done.count("M") - done.count("U"))
        convs = [layer for layer in list(self.salgan)[: location + 1] if isinstance(layer, _CONVOLUTIONS)]
        return convs[-1].out_channels, height // scale, width // scale

    def _check_residual(self) -> None:
        if not self.architecture.residual or self.architecture.kind != "salema":
            return
        location = self.architecture.ema_locs[0]
        layer = self.salgan[location]
        same = layer.in_channels == layer.out_channels if isinstance(layer, nn.Conv2d) else LAYERS[location] == "R"
        if not same:
            raise UsageError(
                f"--residual --ema-loc {location}: layer {location} changes the shape of what enters it (or is the map"
                " itself), so the two can't be added; choose a ReLU or a convolution that keeps its channels, say 30"
            )


class Encoder(nn.Module):
    """The first part of a split model, a SalEMA with one location, up to and including the averaged layer.

    Raises:
        UsageError: it is another variant, or its state is the map.
    """

    def __init__(self, step: SaliencyStep) -> None:
        super().__init__()
        architecture = step.architecture
        if len(architecture.ema_locs) != 1 or architecture.ema_locs[0] == len(LAYERS) - 1:
            raise UsageError(
                f"--split: {architecture.name} can't be taken apart; it is for SalEMA with one location below"
                f" {len(LAYERS) - 1}"
            )
        self.step = step
        self.location = architecture.ema_locs[0]

    @property
    def split(self) -> SplitSpec:
        """What runs between the parts."""
        architecture = self.step.architecture
        added = "fresh" if architecture.adds_rectified(self.location) else "entered"
        return SplitSpec(
            added if architecture.residual else None,
            relu=LAYERS[self.location + 1] == "R",
            rectified=architecture.keeps_rectified(self.location),
        )

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        """Returns the averaged layer's output `[N, C, h, w]`; and its input, if that is added later."""
        entered = self.step.run_layers(self.step.to_network(frame), 0, self.location)
        fresh = self.step.run_layers(entered, self.location, self.location + 1)
        return (fresh, entered) if self.split.residual == "entered" else (fresh,)


class Decoder(nn.Module):
    """The second part of a split model: the layers after the averaged one and its ReLU, if it has one."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.step = encoder.step
        self.start = encoder.location + 1 + encoder.split.relu

    def forward(self, averaged: Tensor) -> Tensor:
        """Takes the state `[N, C, h, w]` in the network's dtype; returns the map `[N, 1, H, W]` float32."""
        return self.step.run_layers(averaged, self.start, len(LAYERS))


def ema(fresh: Tensor, state: Tensor, mix: Tensor) -> Tensor:
    """Moves a state `[N, C, h, w]` towards `fresh` by `mix` `[N]`. A `mix` of 1 selects `fresh`, which clears a NaN."""
    weight = mix[:, None, None, None]
    return torch.where(weight == 1, fresh, state + weight * (fresh - state))


def _layer(kind: str, name: str, weights: Mapping[str, Tensor]) -> nn.Module:
    match kind:
        case "C":
            return _conv(name, weights)
        case "R":
            return nn.ReLU()
        case "M":
            return nn.MaxPool2d(2)
        case "U":
            return nn.Upsample(scale_factor=2)
        case _:
            return nn.Sigmoid()


def _conv(name: str, weights: Mapping[str, Tensor]) -> nn.Conv2d:
    out, inp, kernel, _ = weights[f"{name}.weight"].shape
    return nn.Conv2d(inp, out, kernel, padding=kernel // 2)
