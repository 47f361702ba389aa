"""Group normalisation and SiLU of channels-last tensors in one kernel each way, in Triton, which comes with torch on
Linux' GPUs.

A program has one group of one picture: it reads it twice, sums in float32, and writes it once.
"""
# mypy: ignore-errors

import torch
import triton
import triton.language as tl

_ELEMENTS = 4096  # that a program has in registers at once


def launch_forward(x, weight, bias, y, mean, rstd, eps: float, silu: bool) -> None:
    """x, y: (n, c, h, w), channels last; mean, rstd: (n, groups) float32."""
    with torch.cuda.device_of(x):
        _forward[(mean.numel(),)](x, weight, bias, y, mean, rstd, eps, silu, **_sizes(x, mean.shape[1]), num_warps=4)


def launch_backward(dy, x, weight, bias, mean, rstd, dx, dweight, dbias, silu: bool) -> None:
    """dweight, dbias: (n, c) float32, of each picture."""
    tensors = (dy, x, weight, bias, mean, rstd, dx, dweight, dbias)
    with torch.cuda.device_of(x):
        _backward[(mean.numel(),)](*tensors, silu, **_sizes(x, mean.shape[1]), num_warps=8)


def _sizes(x, groups: int) -> dict[str, int]:
    channels = x.shape[1] // groups
    width = triton.next_power_of_2(channels)
    locations = x.shape[2] * x.shape[3]
    height = max(1, _ELEMENTS // width)
    return {"locations": locations, "groups": groups, "CHANNELS": channels, "WIDTH": width, "HEIGHT": height}


@triton.jit
def _group(locations, groups, CHANNELS: tl.constexpr):
    """Where this program's group begins: in a picture's channels, and in memory."""
    picture, group = tl.program_id(0) // groups, tl.program_id(0) % groups
    return group * CHANNELS, picture.to(tl.int64) * locations * groups * CHANNELS + group * CHANNELS


@triton.jit
def _block(start, locations, groups, CHANNELS: tl.constexpr, WIDTH: tl.constexpr, HEIGHT: tl.constexpr):
    """Places in memory of a block of locations, from where the group begins, (HEIGHT, WIDTH), and which exist."""
    location, channel = start + tl.arange(0, HEIGHT), tl.arange(0, WIDTH)
    exists = (location < locations)[:, None] & (channel < CHANNELS)[None, :]
    return location[:, None] * (groups * CHANNELS) + channel[None, :], exists


@triton.jit
def _forward(
    x, weight, bias, y, mean, rstd, eps, SILU: tl.constexpr, locations, groups,
    CHANNELS: tl.constexpr, WIDTH: tl.constexpr, HEIGHT: tl.constexpr,
):  # fmt: skip
    first, begin = _group(locations, groups, CHANNELS)
    # Means and squares of blocks, put together as Chan et al. (1979) do: no sum of squares cancels.
    count, average, squares = 0.0, 0.0, 0.0
    for start in range(0, locations, HEIGHT):
        places, exists = _block(start, locations, groups, CHANNELS, WIDTH, HEIGHT)
        values = tl.load(x + begin + places, mask=exists, other=0.0).to(tl.float32)
        fresh = tl.minimum(locations - start, HEIGHT) * CHANNELS * 1.0
        of_block = tl.sum(tl.sum(values, 1), 0) / fresh
        apart = tl.where(exists, values - of_block, 0.0)
        step = of_block - average
        squares += tl.sum(tl.sum(apart * apart, 1), 0) + step * step * count * fresh / (count + fresh)
        average += step * fresh / (count + fresh)
        count += fresh
    scale = 1 / tl.sqrt(squares / count + eps)
    tl.store(mean + tl.program_id(0), average)
    tl.store(rstd + tl.program_id(0), scale)
    channel = tl.arange(0, WIDTH)
    gain = tl.load(weight + first + channel, mask=channel < CHANNELS, other=0.0).to(tl.float32)[None, :]
    level = tl.load(bias + first + channel, mask=channel < CHANNELS, other=0.0).to(tl.float32)[None, :]
    for start in range(0, locations, HEIGHT):
        places, exists = _block(start, locations, groups, CHANNELS, WIDTH, HEIGHT)
        values = tl.load(x + begin + places, mask=exists, other=0.0).to(tl.float32)
        z = (values - average) * scale * gain + level
        if SILU:
            z = z * tl.sigmoid(z)
        tl.store(y + begin + places, z.to(y.dtype.element_ty), mask=exists)


@triton.jit
def _slope(dy, x, places, exists, average, scale, gain, level, SILU: tl.constexpr):
    """The gradient before SiLU, and the normalised values, of a block."""
    slope = tl.load(dy + places, mask=exists, other=0.0).to(tl.float32)
    normal = tl.where(exists, (tl.load(x + places, mask=exists, other=0.0).to(tl.float32) - average) * scale, 0.0)
    if SILU:
        z = normal * gain + level
        share = tl.sigmoid(z)
        slope = slope * share * (1 + z * (1 - share))
    return slope, normal


@triton.jit
def _backward(
    dy, x, weight, bias, mean, rstd, dx, dweight, dbias, SILU: tl.constexpr, locations, groups,
    CHANNELS: tl.constexpr, WIDTH: tl.constexpr, HEIGHT: tl.constexpr,
):  # fmt: skip
    first, begin = _group(locations, groups, CHANNELS)
    average, scale = tl.load(mean + tl.program_id(0)), tl.load(rstd + tl.program_id(0))
    channel = tl.arange(0, WIDTH)
    gain = tl.load(weight + first + channel, mask=channel < CHANNELS, other=0.0).to(tl.float32)
    level = tl.load(bias + first + channel, mask=channel < CHANNELS, other=0.0).to(tl.float32)
    of_weight, of_bias = tl.zeros([WIDTH], tl.float32), tl.zeros([WIDTH], tl.float32)
    for start in range(0, locations, HEIGHT):
        places, exists = _block(start, locations, groups, CHANNELS, WIDTH, HEIGHT)
        slope, normal = _slope(
            dy + begin, x + begin, places, exists, average, scale, gain[None, :], level[None, :], SILU
        )
        of_weight += tl.sum(slope * normal, 0)
        of_bias += tl.sum(slope, 0)
    own = tl.program_id(0) * CHANNELS + channel  # groups follow each other within a picture, as channels do
    tl.store(dweight + own, of_weight, mask=channel < CHANNELS)
    tl.store(dbias + own, of_bias, mask=channel < CHANNELS)
    along = tl.sum(of_weight * gain, 0) / (locations * CHANNELS)
    common = tl.sum(of_bias * gain, 0) / (locations * CHANNELS)
    for start in range(0, locations, HEIGHT):
        places, exists = _block(start, locations, groups, CHANNELS, WIDTH, HEIGHT)
        slope, normal = _slope(
            dy + begin, x + begin, places, exists, average, scale, gain[None, :], level[None, :], SILU
        )
        found = (slope * gain[None, :] - common - normal * along) * scale
        tl.store(dx + begin + places, found.to(dx.dtype.element_ty), mask=exists)
