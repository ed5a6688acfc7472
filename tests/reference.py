"""The published recurrences written out plainly, layer by layer. Shares no code with the modules it is held against."""

import torch
from torch.nn import functional

CONVS = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28, 30, 32, 34, 37, 39, 41, 44, 46, 48, 51, 53, 56, 58, 60]
POOLS = [4, 9, 16, 23]
UPSAMPLINGS = [36, 43, 50, 55]


def layer(weights, index, x, in_place=True):
    """One layer. The encoder's ReLUs overwrite what enters them, as torchvision's do."""
    if index in CONVS:
        weight = weights[f"salgan.{index}.weight"]
        return functional.conv2d(x, weight, weights[f"salgan.{index}.bias"], padding=0 if index == 60 else 1)
    if index in POOLS:
        return functional.max_pool2d(x, 2)
    if index in UPSAMPLINGS:
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    if index == 61:
        return torch.sigmoid(x)
    return x.clamp_(min=0) if in_place and index < 30 else x.clamp(min=0)


def prepared(frame):
    blue, green, red = (frame[..., c].astype("float64") for c in range(3))
    return torch.stack(
        [torch.from_numpy(blue - 103.939), torch.from_numpy(green - 116.779), torch.from_numpy(red - 123.68)]
    )[None]


def salema(weights, frames, a, locations=(), residual=False, in_place=True):
    """Maps and, per location, the last state; SalGAN is the case of no location. Without `in_place` the plain rule."""
    weights = {key: value.double() for key, value in weights.items()}
    states, maps = {}, []
    for t, frame in enumerate(frames):
        x = prepared(frame)
        for index in range(62):
            entered = x
            x = layer(weights, index, x, in_place)
            if index in locations:
                states[index] = x if t == 0 else a * x + (1 - a) * states[index]
                x = states[index] + entered if residual else states[index]
        maps.append(x[0, 0])
    return torch.stack(maps).numpy(), [states[index].numpy() for index in locations]


def salclstm(weights, frames, place, residual=False):
    """Maps, and the last hidden state and cell, for SalCLSTM30 (place 30) and SalCLSTM56 (place 56)."""
    weights = {key: value.double() for key, value in weights.items()}
    hidden = cell = None
    maps = []
    for frame in frames:
        x = prepared(frame)
        for index in range(place):
            x = layer(weights, index, x)
        if hidden is None:
            hidden, cell = torch.zeros_like(x), torch.zeros_like(x)
        gates = functional.conv2d(torch.cat([x, hidden], 1), weights["Gates.weight"], weights["Gates.bias"], padding=1)
        n = x.shape[1]
        i, f, o, g = gates[:, :n], gates[:, n : 2 * n], gates[:, 2 * n : 3 * n], gates[:, 3 * n :]
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        hidden = torch.sigmoid(o) * torch.tanh(cell)
        y = cell + x if residual else cell
        if place == 30:
            for index in range(30, 62):
                y = layer(weights, index, y)
        else:
            for index, padding in ((0, 1), (2, 1), (4, 0)):
                y = functional.conv2d(
                    y, weights[f"final_convs.{index}.weight"], weights[f"final_convs.{index}.bias"], padding=padding
                )
                y = torch.sigmoid(y) if index == 4 else y.clamp(min=0)
        maps.append(y[0, 0])
    return torch.stack(maps).numpy(), [hidden.numpy(), cell.numpy()]
