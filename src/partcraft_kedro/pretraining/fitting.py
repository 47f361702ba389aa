"""One resumable training loop, shared by the networks of tiny."""

import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm import tqdm

from partcraft_kedro.files import write_file

Batch = TypeVar("Batch")
Network = TypeVar("Network", bound=nn.Module)
_AHEAD = 4  # batches drawn while others are computed
_NARROW = 16  # rows or columns under which a matrix has too few directions to be made orthogonal
_MUON_RATE = 3.0  # Muon's learning rate in AdamW's: of 1, 3 the better by trial


def fit(
    module: Network,
    draw: Callable[[int], Batch],
    loss_of: Callable[[Batch], torch.Tensor],
    folder: Path,
    *,
    steps: int,
    learning_rate: float,
    weight_decay: float = 0.01,
    average: float = 0.999,
    checkpoint_every: int = 500,
    on_checkpoint: Callable[[int, nn.Module], None] = lambda step, module: None,
) -> Network:
    """Minimise with Muon and AdamW, 2% linear warm-up, cosine decay to 2%, and a moving average of the weights.

    Muon (Jordan et al. 2024) takes matrices and kernels, AdamW all else: on a CPU the U-Net's loss then falls with a
    step as it does with AdamW alone in more than two.

    draw: a step's batch, of the step alone, called ahead in threads; loss_of: its loss. Every `checkpoint_every` steps
    the state goes to `folder` (written beside and renamed) and `on_checkpoint` sees the averaged weights.
    Returns the module with its averaged weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    parameters = [module.get_parameter(name) for name in names]
    optimizer = _Optimizer(module, names, learning_rate, weight_decay)
    averages = {name: p.detach().clone() for name, p in zip(names, parameters, strict=True)}
    checkpoint, log = folder / "checkpoint.safetensors", folder / "losses.jsonl"
    first = 0
    if checkpoint.exists():
        state = load_file(checkpoint)
        first = int(state["step"])
        for name, parameter in zip(names, parameters, strict=True):
            parameter.data.copy_(state[f"weights/{name}"])
            averages[name].copy_(state[f"average/{name}"])
        optimizer.load(state, first)

    def save(step: int) -> None:
        state = {"step": torch.tensor(step)}
        for name, parameter in zip(names, parameters, strict=True):
            state |= {
                f"weights/{name}": parameter.detach().contiguous(),
                f"average/{name}": averages[name].contiguous(),
            }
        state |= optimizer.moments()
        write_file(checkpoint, lambda partial: save_file(state, partial))

    def with_averages(action: Callable[[], None]) -> None:
        kept = [parameter.detach().clone() for parameter in parameters]
        for name, parameter in zip(names, parameters, strict=True):
            parameter.data.copy_(averages[name])
        action()
        for parameter, weights in zip(parameters, kept, strict=True):
            parameter.data.copy_(weights)

    losses, began = [], time.monotonic()
    warm_up = max(1, steps // 50)
    batches = tqdm(_ahead(draw, first, steps), initial=first, total=steps, desc=folder.name, mininterval=5)
    for step, batch in enumerate(batches, start=first):
        factor = min(1.0, (step + 1) / warm_up) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        module.train()
        loss = loss_of(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step(factor)
        module.zero_grad(set_to_none=True)
        decay = min(average, (step + 1) / (step + 10))
        torch._foreach_lerp_([averages[name] for name in names], [p.data for p in parameters], 1 - decay)
        losses.append(loss.detach())
        if (step + 1) % checkpoint_every == 0 or step + 1 == steps:
            save(step + 1)
            with log.open("a") as lines:
                seconds = time.monotonic() - began
                row = {"step": step + 1, "loss": float(torch.stack(losses).mean()), "seconds": round(seconds, 1)}
                lines.write(json.dumps(row) + "\n")
            losses.clear()
            module.eval()
            with_averages(partial(on_checkpoint, step + 1, module))
            began = time.monotonic()
    for name, parameter in zip(names, parameters, strict=True):
        parameter.data.copy_(averages[name])
    return module.eval()


def seconds_spent(folder: Path) -> float:
    """What the trainings below a folder took to their last checkpoints, however often they were broken off."""
    logs = [log.read_text().splitlines() for log in folder.rglob("losses.jsonl")]
    return sum(json.loads(line)["seconds"] for log in logs for line in log)


class _Optimizer:
    """Muon for what is a matrix, AdamW for embeddings, norms, biases and what is narrow on one side."""

    def __init__(self, module: nn.Module, names: list[str], learning_rate: float, weight_decay: float):
        self._rate = learning_rate
        embeddings = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
        self._others: dict[str, nn.Parameter] = {}
        self._matrices: dict[str, tuple[nn.Parameter, nn.Parameter]] = {}
        for name in names:
            parameter = module.get_parameter(name)
            if id(parameter) in embeddings or parameter.ndim < 2 or min(parameter.shape[:2]) < _NARROW:
                self._others[name] = parameter
            else:  # torch's Muon knows matrices alone: a kernel is one, a row for each channel that comes out
                self._matrices[name] = parameter, nn.Parameter(parameter.data.view(len(parameter), -1))
        self._adam = torch.optim.AdamW(self._others.values(), betas=(0.9, 0.99), weight_decay=weight_decay, fused=True)
        self._muon = torch.optim.Muon(
            [matrix for _, matrix in self._matrices.values()],
            weight_decay=weight_decay,
            momentum=0.95,
            adjust_lr_fn="match_rms_adamw",
        )

    def step(self, factor: float) -> None:
        """factor: of the learning rate."""
        for parameter, matrix in self._matrices.values():
            matrix.grad = None if parameter.grad is None else parameter.grad.reshape(matrix.shape)
        for optimizer, rate in ((self._adam, self._rate), (self._muon, _MUON_RATE * self._rate)):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
            optimizer.step()

    def moments(self) -> dict[str, torch.Tensor]:
        """The state, for a checkpoint."""
        moments: dict[str, torch.Tensor] = {}
        for name, parameter in self._others.items():
            state = self._adam.state[parameter]
            moments |= {f"first/{name}": state["exp_avg"], f"second/{name}": state["exp_avg_sq"]}
        for name, (_, matrix) in self._matrices.items():
            moments[f"first/{name}"] = self._muon.state[matrix]["momentum_buffer"]
        return {name: tensor.contiguous() for name, tensor in moments.items()}

    def load(self, moments: dict[str, torch.Tensor], step: int) -> None:
        for name, parameter in self._others.items():
            self._adam.state[parameter] = {
                "step": torch.tensor(float(step), device=parameter.device),
                "exp_avg": moments[f"first/{name}"].to(parameter.device),
                "exp_avg_sq": moments[f"second/{name}"].to(parameter.device),
            }
        for name, (parameter, matrix) in self._matrices.items():
            self._muon.state[matrix] = {"momentum_buffer": moments[f"first/{name}"].to(parameter.device)}


def _ahead(draw: Callable[[int], Batch], first: int, steps: int) -> Iterator[Batch]:
    """The batches of steps `first` to `steps`, some drawn by threads while the caller works on another."""
    with ThreadPoolExecutor(2) as pool:
        waiting: list[Future[Batch]] = []
        for step in range(first, steps):
            waiting.append(pool.submit(draw, step))
            if len(waiting) > _AHEAD:
                yield waiting.pop(0).result()
        for last in waiting:
            yield last.result()
