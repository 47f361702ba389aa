"""The training loop: checkpoints that a killed run goes on from, bit for bit on a CPU."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from diffusers import DDPMScheduler
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm

from partcraft_kedro.errors import UserError
from partcraft_kedro.model.attention import AttentionCapture
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.options import TrainOptions
from partcraft_kedro.stages import write_file
from partcraft_kedro.training.cache import TrainingCache
from partcraft_kedro.training.step import draw_batch, training_loss

_TABLE = "part_encoder.variants.weight"


def train(
    model: PartCraft,
    cache: TrainingCache,
    options: TrainOptions,
    folder: Path,
    fingerprint: str,
    *,
    on_log: Callable[[int, dict[str, float]], None] = lambda step, means: None,
    on_sample: Callable[[int, PartCraft], None] = lambda step, model: None,
) -> pd.DataFrame:
    """Train in place; returns the logged means, one row per `log_every` steps.

    folder: where `checkpoint.safetensors` and `losses.csv` live; a checkpoint found there is gone on from.
    fingerprint: of everything that the result depends on; a checkpoint made with another one raises UserError.
    on_log, on_sample: called with the number of steps done.
    """
    trainer = _Trainer(model.trainable(), options, folder, fingerprint)
    noise_schedule = DDPMScheduler.from_config(model.pipeline.scheduler.config)
    first, history = trainer.resume()
    sums: dict[str, torch.Tensor] = {}
    progress = tqdm(range(first, options.steps), initial=first, total=options.steps, desc="train")
    with AttentionCapture(model.pipeline.unet) as capture:
        for step in progress:
            for part in range(options.accumulation):
                batch = draw_batch(model, cache, options, step * options.accumulation + part)
                losses = training_loss(model, capture, noise_schedule, batch, options)
                (losses["loss"] / options.accumulation).backward()
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0) + value.detach()
            trainer.step()
            done = step + 1
            # A checkpoint closes the running mean, so that a resumed run logs what an unbroken one does.
            if done % options.log_every == 0 or done % options.checkpoint_every == 0 or done == options.steps:
                covered = done - (history[-1]["step"] if history else 0)
                means = {name: float(v) / (covered * options.accumulation) for name, v in sums.items()}
                sums.clear()
                history.append({"step": done, **means})
                progress.set_postfix({name: f"{value:.3f}" for name, value in means.items()})
                on_log(done, means)
            # Before the checkpoint: a run killed while it samples comes back here, and no sample is missing.
            if done % options.sample_every == 0 and done < options.steps:
                capture.watch(None)
                on_sample(done, model)
            if done % options.checkpoint_every == 0 or done == options.steps:
                trainer.save(done, history)
    return pd.DataFrame(history)


class _Trainer:
    """AdamW over named parameters, and its state on disk."""

    def __init__(self, parameters: dict[str, nn.Parameter], options: TrainOptions, folder: Path, fingerprint: str):
        self._parameters = parameters
        self._options = options
        self._checkpoint = folder / "checkpoint.safetensors"
        self._losses = folder / "losses.csv"
        self._fingerprint = fingerprint
        rest = [parameter for name, parameter in parameters.items() if name != _TABLE]
        groups = [
            {"params": rest, "weight_decay": options.weight_decay},
            {"params": [parameters[_TABLE]], "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=options.learning_rate)

    def step(self) -> None:
        table = self._parameters[_TABLE]
        nn.utils.clip_grad_norm_(self._parameters.values(), self._options.max_gradient_norm)
        # AdamW would shrink every row in every step, and so erode variants that are seldom seen.
        used = (table.grad != 0).any(1, keepdim=True)
        shrink = 1 - self._options.learning_rate * self._options.weight_decay
        table.data.mul_(torch.where(used, shrink, 1.0))
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def save(self, step: int, history: list[dict]) -> None:
        state = {}
        for name, parameter in self._parameters.items():
            moments = self._optimizer.state[parameter]
            state[f"weights/{name}"] = parameter.detach()
            state[f"first/{name}"] = moments["exp_avg"]
            state[f"second/{name}"] = moments["exp_avg_sq"]
        state = {name: tensor.cpu().contiguous() for name, tensor in state.items()}
        # One entry: safetensors writes several in random order, and checkpoints are compared by their bytes.
        metadata = {"training": json.dumps({"step": step, "fingerprint": self._fingerprint})}
        write_file(self._losses, lambda partial: pd.DataFrame(history).to_csv(partial, index=False))
        write_file(self._checkpoint, lambda partial: save_file(state, partial, metadata))

    def resume(self) -> tuple[int, list[dict]]:
        """The step to go on from, and what was logged up to it."""
        if not self._checkpoint.exists():
            return 0, []
        try:
            with safe_open(self._checkpoint, "pt") as stored:
                metadata = json.loads(stored.metadata()["training"])
                state = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        except Exception as error:
            raise UserError(
                f"The checkpoint {self._checkpoint} cannot be read ({error}): delete it to train from the start."
            ) from error
        if metadata["fingerprint"] != self._fingerprint:
            raise UserError(
                f"The checkpoint {self._checkpoint} was made with other options: delete it to train from the start."
            )
        step = metadata["step"]
        for name, parameter in self._parameters.items():
            parameter.data.copy_(state[f"weights/{name}"])
            self._optimizer.state[parameter] = {
                "step": torch.tensor(float(step)),
                "exp_avg": state[f"first/{name}"].to(parameter.device),
                "exp_avg_sq": state[f"second/{name}"].to(parameter.device),
            }
        history = pd.read_csv(self._losses, float_precision="round_trip")
        return step, history[history["step"] <= step].to_dict("records")
