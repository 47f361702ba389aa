"""One resumable training loop, shared by the four networks of tiny."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm import tqdm

from partcraft_kedro.stages import write_file


def fit(
    module: nn.Module,
    loss_of_step: Callable[[int], torch.Tensor],
    folder: Path,
    *,
    steps: int,
    learning_rate: float,
    weight_decay: float = 0.01,
    average: float = 0.999,
    checkpoint_every: int = 500,
    on_checkpoint: Callable[[int, nn.Module], None] = lambda step, module: None,
) -> nn.Module:
    """Minimise with AdamW, 2% linear warm-up, cosine decay to 2%, and an exponential moving average of weights.

    `loss_of_step(step)` must draw its randomness from the step alone. Every `checkpoint_every` steps the state
    goes to `folder` (written beside and renamed) and `on_checkpoint` sees the averaged weights.
    Returns the module with its averaged weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    parameters = [module.get_parameter(name) for name in names]
    optimizer = torch.optim.AdamW(
        parameters, lr=learning_rate, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True
    )
    averages = {name: p.detach().clone() for name, p in zip(names, parameters, strict=True)}
    checkpoint, log = folder / "checkpoint.safetensors", folder / "losses.jsonl"
    first = 0
    if checkpoint.exists():
        state = load_file(checkpoint)
        first = int(state["step"])
        for name, parameter in zip(names, parameters, strict=True):
            parameter.data.copy_(state[f"weights/{name}"])
            averages[name].copy_(state[f"average/{name}"])
            optimizer.state[parameter] = {
                "step": torch.tensor(float(first)),
                "exp_avg": state[f"first/{name}"],
                "exp_avg_sq": state[f"second/{name}"],
            }

    def save(step: int) -> None:
        state = {"step": torch.tensor(step)}
        for name, parameter in zip(names, parameters, strict=True):
            moments = optimizer.state[parameter]
            state |= {
                f"weights/{name}": parameter.detach().contiguous(),
                f"average/{name}": averages[name].contiguous(),
                f"first/{name}": moments["exp_avg"].contiguous(),
                f"second/{name}": moments["exp_avg_sq"].contiguous(),
            }
        write_file(checkpoint, lambda partial: save_file(state, partial))

    def with_averages(action: Callable[[], None]) -> None:
        kept = [parameter.detach().clone() for parameter in parameters]
        for name, parameter in zip(names, parameters, strict=True):
            parameter.data.copy_(averages[name])
        action()
        for parameter, weights in zip(parameters, kept, strict=True):
            parameter.data.copy_(weights)

    losses = []
    warm_up = max(1, steps // 50)
    for step in tqdm(range(first, steps), initial=first, total=steps, desc=folder.name, mininterval=5):
        progress = step / steps
        factor = min(1.0, (step + 1) / warm_up) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * factor
        module.train()
        loss = loss_of_step(step)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        decay = min(average, (step + 1) / (step + 10))
        torch._foreach_lerp_([averages[name] for name in names], [p.data for p in parameters], 1 - decay)
        losses.append(loss.detach())
        if (step + 1) % checkpoint_every == 0 or step + 1 == steps:
            save(step + 1)
            with log.open("a") as lines:
                row = {"step": step + 1, "loss": float(torch.stack(losses).mean())}
                lines.write(json.dumps(row) + "\n")
            losses.clear()
            module.eval()
            with_averages(lambda done=step + 1: on_checkpoint(done, module))
    for name, parameter in zip(names, parameters, strict=True):
        parameter.data.copy_(averages[name])
    return module.eval()
