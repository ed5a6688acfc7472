"""Rewrites of the network that change its graph, but not its result."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from salema.runtime.backends.openvino_graph import transposed_kernel
from salema.runtime.errors import UsageError
from salema.runtime.spec import TRANSPOSED

if TYPE_CHECKING:
    from salema.export.options import ExportOptions

CROPPED, CROPPED_LAST = "upsampling-cropped", "upsampling-cropped-channels-last"
MEAN = "mean-as-channel"
REWRITES = (CROPPED, CROPPED_LAST, TRANSPOSED, MEAN)
FOR: dict[str, tuple[str, ...]] = {
    "any": (),
    "onnxruntime": (CROPPED,),
    "openvino": (TRANSPOSED,),
    "tensorrt": (),
    "ncnn": (),
}
"""The rewrites that make each runtime faster. TensorRT gets the plain graph, as nothing was measured on a GPU yet. ncnn
computes 3x3 convolutions by Winograd's method, with a quarter of the multiplications; the folded forms need 4 of 9, and
can't use that method."""
FOR_INT8 = {**FOR, "onnxruntime": (CROPPED_LAST,), "tensorrt": (TRANSPOSED,)}
"""The same for INT8. There ONNX Runtime keeps channels last. TensorRT resizes in float only, so a Resize would break
the chain of INT8 layers."""


def rewrites_for(options: ExportOptions) -> tuple[str, ...]:
    """Returns the names of the rewrites to apply, from `REWRITES`."""
    chosen = (FOR_INT8 if options.precision == "int8" else FOR)[options.for_] if options.rewrite else ()
    return (*chosen, *((MEAN,) if options.mean_channel else ()))


# A nearest x2 upsampling doubles rows, so the three taps after it meet two rows before it. Even rows of the output use
# the row before (tap 0) and their own (taps 1 and 2), odd rows their own (0 and 1) and the next (2).
_EVEN, _ODD = ((0,), (1, 2)), ((0, 1), (2,))


def phase_weights(weight: Tensor) -> list[list[Tensor]]:
    """Returns the four 2x2 kernels that before the upsampling do the work of a 3x3 kernel `[O, I, 3, 3]` after it.

    They are float64 `[O, I, 2, 2]`, by `[row][column]`: even or odd rows and columns of the output.
    """
    wide = weight.to(torch.float64)

    def fold(taps: Tensor, axis: int) -> list[Tensor]:
        rows = taps.unbind(axis)
        return [
            torch.stack([torch.stack([rows[i] for i in part]).sum(0) for part in parity], axis)
            for parity in (_EVEN, _ODD)
        ]

    return [fold(half, 3) for half in fold(wide, 2)]


class CroppedUpConv(nn.Module):
    """Upsampling and the 3x3 convolution after it as one 2x2 convolution to four times the channels.

    Its four phases are cropped, each where its own zero padding ends, and interleaved.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.out_channels = conv.out_channels
        self.conv = _of_phases(conv, [phase for row in phase_weights(conv.weight) for phase in row])

    def forward(self, x: Tensor) -> Tensor:
        """Takes `[N, I, h, w]`; returns `[N, O, 2h, 2w]`."""
        height, width = x.shape[2:]
        phases = self.conv(x).reshape(-1, 2, 2, self.out_channels, height + 1, width + 1)
        # Stacked, not permuted: ONNX Runtime is slow at a transpose of six axes, and so takes 0.94 of the time.
        rows = [
            torch.stack([phases[:, a, b, :, a : a + height, b : b + width] for b in range(2)], -1).flatten(-2)
            for a in range(2)
        ]
        return torch.stack(rows, 3).flatten(2, 3)


class CroppedLastUpConv(nn.Module):
    """The same with channels last while the phases are interleaved: each move is of whole rows of channels.

    In INT8 ONNX Runtime keeps channels last anyway. In FP32 it does not, and a step takes longer so.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.out_channels = conv.out_channels
        # Row 2i + a comes from row i + a of phase a, so as row 2(i + a) + 1 - a of what is interleaved with the odd
        # phases first: one row too far for both. So one crop fits all phases.
        phases = [phase for row in reversed(phase_weights(conv.weight)) for phase in reversed(row)]
        self.conv = _of_phases(conv, phases)

    def forward(self, x: Tensor) -> Tensor:
        """Takes `[N, I, h, w]`; returns `[N, O, 2h, 2w]`."""
        height, width = x.shape[2:]
        pairs = self.conv(x).permute(0, 2, 3, 1).reshape(-1, height + 1, width + 1, 2, 2 * self.out_channels)
        rows: Tensor = pairs.permute(0, 1, 3, 2, 4).reshape(-1, 2 * height + 2, 2 * width + 2, self.out_channels)
        return rows[:, 1:-1, 1:-1].permute(0, 3, 1, 2)


def _of_phases(conv: nn.Conv2d, phases: list[Tensor]) -> nn.Conv2d:
    """Returns one convolution to the channels of four phases of `conv`."""
    assert conv.bias is not None
    wide = nn.Conv2d(conv.in_channels, 4 * conv.out_channels, 2, padding=1, dtype=torch.float64)
    wide.load_state_dict({"weight": torch.cat(phases), "bias": conv.bias.detach().to(torch.float64).repeat(4)})
    return wide


class TransposedUpConv(nn.ConvTranspose2d):
    """Upsampling and the 3x3 convolution after it as one transposed 4x4 convolution of stride 2."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(conv.in_channels, conv.out_channels, 4, stride=2, padding=1, dtype=torch.float64)
        assert conv.bias is not None
        weight = torch.from_numpy(transposed_kernel(conv.weight.detach().numpy()))
        self.load_state_dict({"weight": weight, "bias": conv.bias.detach().to(torch.float64)})


FOLDED: dict[str, Callable[[nn.Conv2d], nn.Module]] = {
    CROPPED: CroppedUpConv,
    CROPPED_LAST: CroppedLastUpConv,
    TRANSPOSED: TransposedUpConv,
}

MEAN_CHANNEL = 255.0
"""Value of the fourth channel: as large as a pixel's, so that its weights are as large as the others, in FP16 too."""


def fold_mean(conv: nn.Conv2d, mean: Tensor) -> nn.Conv2d:
    """Returns the first convolution in float64 with a fourth channel, 255 everywhere, whose weights subtract `mean`.

    In the bias, the mean `[3]` would be wrong at the border: there padding puts zeros for pixels minus their mean.
    """
    wide = conv.weight.detach().to(torch.float64)
    fourth = -(wide * mean.to(torch.float64).view(1, -1, 1, 1)).sum(1, keepdim=True) / MEAN_CHANNEL
    size, padding = (conv.kernel_size[0], conv.kernel_size[1]), (int(conv.padding[0]), int(conv.padding[1]))
    folded = nn.Conv2d(conv.in_channels + 1, conv.out_channels, size, padding=padding, dtype=torch.float64)
    assert conv.bias is not None
    folded.load_state_dict({"weight": torch.cat([wide, fourth], 1), "bias": conv.bias.detach().to(torch.float64)})
    return folded


def fold_upsampling(layers: nn.Sequential, form: str, kept: Container[int]) -> None:
    """Folds each upsampling into the convolution that follows, in place, in one of `FOLDED`.

    The layers `kept` stay as they are: the network is split before them. Weights are summed in float64, so all forms
    differ from the plain one by rounding only.
    """
    if form not in FOLDED:
        raise UsageError(f"rewrite {form}: not one of {', '.join(REWRITES)}")
    for index in range(len(layers) - 1):
        conv = layers[index + 1]
        if isinstance(layers[index], nn.Upsample) and isinstance(conv, nn.Conv2d) and index + 1 not in kept:
            layers[index] = nn.Identity()
            layers[index + 1] = FOLDED[form](conv)
