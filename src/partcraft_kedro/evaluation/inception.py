"""The Inception-v3 by which FID is defined (Heusel et al. 2017): TensorFlow's network of 2015-12-05, not torchvision's.

It differs from Szegedy et al. (2016) in its 1008 outputs (left out here: features are taken before them), in average
pools that leave padding out of the mean, and in a maximum pool in the last block. It is our own because torchmetrics
has it from torch-fidelity, and that needs torchvision. Names of layers are those of pytorch-fid's and torch-fidelity's
weights, which are the same file.
"""

from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from partcraft_kedro.errors import UserError
from partcraft_kedro.weights import refuse_not_finite

WEIGHTS = "pt_inception-2015-12-05-6726825d.pth"
_DOWNLOAD = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{WEIGHTS}"

AVERAGE = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
MAXIMUM = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)
SHRINK = partial(F.max_pool2d, kernel_size=3, stride=2)


class Convolution(nn.Module):
    """Convolution, batch norm, ReLU: (n, inputs, h, w) → (n, outputs, h', w')."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int] = (1, 1), stride: int = 1, pad: bool = True):
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if pad else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Branches side by side, their outputs concatenated.

    A branch is a list of steps: a pooling, a convolution (name, outputs, kernel), or a list of convolutions side by
    side. In a shrinking block the last convolution of each branch has stride 2 and no padding.
    """

    def __init__(self, inputs: int, *branches: list, shrinks: bool = False):
        super().__init__()
        self._branches = []
        for branch in branches:
            steps, width = [], inputs
            for position, step in enumerate(branch):
                if callable(step):
                    steps.append(step)
                    continue
                last = shrinks and position == len(branch) - 1
                convolutions = step if isinstance(step, list) else [step]
                for name, outputs, kernel in convolutions:
                    self.add_module(name, Convolution(width, outputs, kernel, 2 if last else 1, pad=not last))
                steps.append([name for name, _, _ in convolutions])
                width = sum(outputs for _, outputs, _ in convolutions)
            self._branches.append(steps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs = []
        for steps in self._branches:
            y = x
            for step in steps:
                y = step(y) if callable(step) else torch.cat([self.get_submodule(name)(y) for name in step], 1)
            outputs.append(y)
        return torch.cat(outputs, 1)


_ONE, _THREE, _FIVE, _ROW, _COLUMN = (1, 1), (3, 3), (5, 5), (1, 7), (7, 1)


def _block_a(inputs: int, pooled: int) -> Mixed:
    return Mixed(
        inputs,
        [("branch1x1", 64, _ONE)],
        [("branch5x5_1", 48, _ONE), ("branch5x5_2", 64, _FIVE)],
        [("branch3x3dbl_1", 64, _ONE), ("branch3x3dbl_2", 96, _THREE), ("branch3x3dbl_3", 96, _THREE)],
        [AVERAGE, ("branch_pool", pooled, _ONE)],
    )


def _block_b() -> Mixed:
    return Mixed(
        288,
        [("branch3x3", 384, _THREE)],
        [("branch3x3dbl_1", 64, _ONE), ("branch3x3dbl_2", 96, _THREE), ("branch3x3dbl_3", 96, _THREE)],
        [SHRINK],
        shrinks=True,
    )


def _block_c(inner: int) -> Mixed:
    long = [_ONE, _COLUMN, _ROW, _COLUMN, _ROW]
    return Mixed(
        768,
        [("branch1x1", 192, _ONE)],
        [("branch7x7_1", inner, _ONE), ("branch7x7_2", inner, _ROW), ("branch7x7_3", 192, _COLUMN)],
        [(f"branch7x7dbl_{i}", 192 if i == 5 else inner, kernel) for i, kernel in enumerate(long, start=1)],
        [AVERAGE, ("branch_pool", 192, _ONE)],
    )


def _block_d() -> Mixed:
    sevens = [_ONE, _ROW, _COLUMN, _THREE]
    return Mixed(
        768,
        [("branch3x3_1", 192, _ONE), ("branch3x3_2", 320, _THREE)],
        [(f"branch7x7x3_{i}", 192, kernel) for i, kernel in enumerate(sevens, start=1)],
        [SHRINK],
        shrinks=True,
    )


def _block_e(inputs: int, pool: partial) -> Mixed:
    def split(name: str) -> list[tuple]:
        return [(f"{name}a", 384, (1, 3)), (f"{name}b", 384, (3, 1))]

    return Mixed(
        inputs,
        [("branch1x1", 320, _ONE)],
        [("branch3x3_1", 384, _ONE), split("branch3x3_2")],
        [("branch3x3dbl_1", 448, _ONE), ("branch3x3dbl_2", 384, _THREE), split("branch3x3dbl_3")],
        [pool, ("branch_pool", 192, _ONE)],
    )


class Inception(nn.Module):
    """(n, 3, h, w) float in 0..1 → (n, 2048): the last block's features, averaged over the picture."""

    width = 2048
    side = 299  # pixels, both ways

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, _THREE, stride=2, pad=False)
        self.Conv2d_2a_3x3 = Convolution(32, 32, _THREE, pad=False)
        self.Conv2d_2b_3x3 = Convolution(32, 64, _THREE)
        self.Conv2d_3b_1x1 = Convolution(64, 80)
        self.Conv2d_4a_3x3 = Convolution(80, 192, _THREE, pad=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _block_a(192, 32), _block_a(256, 64), _block_a(288, 64)
        self.Mixed_6a = _block_b()
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = map(_block_c, (128, 160, 160, 192))
        self.Mixed_7a = _block_d()
        self.Mixed_7b, self.Mixed_7c = _block_e(1280, AVERAGE), _block_e(2048, MAXIMUM)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        # Antialiased, as torchmetrics does it and Parmar et al. (2022) advise: TensorFlow's own resizing aliases.
        x = F.interpolate(pictures, (self.side, self.side), mode="bilinear", antialias=True)
        x = (x * 255 - 128) / 128
        x = SHRINK(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = SHRINK(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                x = block(x)
        return x.mean((2, 3))

    @classmethod
    def load(cls, path: str | Path) -> "Inception":
        """From the published weights, or the same tensors in a `.safetensors` file; nothing else is unpickled.

        Raises UserError, naming `evaluate.inception`, if the file is missing or holds something else.
        """
        path = Path(path)
        advice = f"download {_DOWNLOAD} and give its path, --params evaluate.inception=<file>."
        if not path.is_file():
            raise UserError(f"evaluate.inception={str(path)!r} is no file: {advice}")
        network = cls()
        try:
            if path.suffix == ".safetensors":
                from safetensors.torch import load_file

                state = load_file(path)
            else:
                state = torch.load(path, map_location="cpu", weights_only=True)
            network.load_state_dict({n: weight for n, weight in state.items() if not n.startswith("fc.")})
        except Exception as error:  # what a file that is no such state raises depends on what it is instead
            raise UserError(
                f"evaluate.inception={str(path)!r} does not hold the weights of FID's Inception-v3: {advice}"
            ) from error
        refuse_not_finite(network.state_dict(), f"evaluate.inception={str(path)!r}")
        return network.eval().requires_grad_(False)
