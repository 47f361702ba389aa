"""The training loop: checkpoints that a killed run goes on from, bit for bit on a CPU."""

import contextlib
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import torch
from diffusers import DDPMScheduler
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm

from partcraft_kedro.errors import FullDisk, UserError
from partcraft_kedro.files import write_file
from partcraft_kedro.model.attention import AttentionCapture
from partcraft_kedro.model.compilation import compile_networks, one_sentence_if_not_compiled
from partcraft_kedro.model.memory import choose_micro_batch
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.options import TrainOptions
from partcraft_kedro.passes import as_many_as_fit, is_out_of_memory
from partcraft_kedro.training.cache import TrainingCache
from partcraft_kedro.training.ranks import Ranks
from partcraft_kedro.training.step import Batch, draw_batches, training_loss
from partcraft_kedro.training.validation import Validation

_logger = logging.getLogger(__name__)
_TABLE = "part_encoder.variants.weight"


def train(
    model: PartCraft,
    cache: TrainingCache,
    options: TrainOptions,
    folder: Path,
    fingerprint: str,
    *,
    validation: Validation | None = None,
    on_log: Callable[[int, dict[str, float]], None] = lambda step, means: None,
    on_sample: Callable[[int, PartCraft], None] = lambda step, model: None,
) -> pd.DataFrame:
    """Train in place; returns the logged means, one row per `log_every` steps.

    In a process group of torch.distributed all its ranks call it together, `on_log` and `on_sample` on rank 0 alone,
    which alone writes. Each learns from an equal slice of every batch, and the gradient is that of one process but for
    rounding.

    folder: where `checkpoint.safetensors` and `losses.csv` live; a checkpoint found there is gone on from.
    fingerprint: of everything that the result depends on; a checkpoint made with another one raises UserError.
    validation: measured whenever means are logged, on the weights that an adapter would hold then.
    on_log, on_sample: called with the number of steps done; on_log first with what was logged up to a checkpoint,
    on_sample also at a checkpoint that is gone on from. A sample that fails for want of memory, or by a UserError, is
    told and left out.
    Raises UserError if memory does not hold one picture, if slices cannot be equal or another rank has ended, or if
    loss, gradient or weights are no finite numbers any more; no checkpoint is ever written with such.
    """
    ranks, learnt = Ranks(), model.trainable()
    ranks.refuse_unequal(options.batch_size)
    trainer = _Trainer(learnt, options, folder, fingerprint)
    first, history = trainer.resume()
    ranks.refuse_unlike(model.networks(), first)
    for row in history:
        on_log(row["step"], {name: value for name, value in row.items() if name != "step"})
    sums: dict[str, torch.Tensor] = {}
    finite = _Finite(first)

    def sample_if_due(done: int) -> None:
        if done and (done % options.sample_every == 0 or done == options.steps):
            capture.watch(None)
            with trainer.averaged():
                _sample(done, model, on_sample)

    steps = range(first, options.steps)
    drawn = contextlib.closing(draw_batches(model, cache, options, steps))
    with AttentionCapture(model.pipeline.unet) as capture, drawn as batches:
        # It may have been broken off between that checkpoint and its sample.
        sample_if_due(first)
        # A run that is gone on with splits its sums as it began.
        gradient = Gradient(model, capture, options, micro_batch=trainer.micro_batch)
        progress = tqdm(steps, initial=first, total=options.steps, desc="train", disable=not ranks.first)
        for step, batch in zip(progress, batches, strict=True):
            losses = ranks.mean(learnt.values(), gradient(ranks.slice_of(batch)))
            for name, value in losses.items():
                sums[name] = sums.get(name, 0) + value
            finite.add(losses["loss"], trainer.step(step))
            done = step + 1
            # A checkpoint closes the running mean, so that a resumed run logs what an unbroken one does.
            if done % options.log_every == 0 or done % options.checkpoint_every == 0 or done == options.steps:
                if ranks.first:  # the others end with it
                    finite.check()
                covered = done - (history[-1]["step"] if history else 0)
                means = {name: float(value) / covered for name, value in sums.items()}
                sums.clear()
                progress.set_postfix({name: f"{value:.3f}" for name, value in means.items()})
                if validation:
                    with trainer.averaged():
                        means |= validation.measure(model, capture, gradient.micro_batch)
                history.append({"step": done, **means})
                if done % options.checkpoint_every == 0 or done == options.steps:
                    # From here on all split their slices alike, as all will that go on from this checkpoint.
                    trainer.micro_batch = gradient.micro_batch = ranks.smallest(gradient.micro_batch)
                    if ranks.first:
                        trainer.save(done, history)
                on_log(done, means)  # after the checkpoint, lest one is lost for what this may raise
            sample_if_due(done)
    trainer.end()
    return pd.DataFrame(history)


def _sample(done: int, model: PartCraft, on_sample: Callable[[int, PartCraft], None]) -> None:
    """Days of training do not end for want of a few pictures."""
    try:
        with torch.compiler.set_stance("force_eager"):  # not compiled anew, in minutes, for a few pictures
            on_sample(done, model)
    except FullDisk:  # else the last pictures were missing for good, where there will be space again
        raise
    except (UserError, RuntimeError) as error:
        if not isinstance(error, UserError) and not is_out_of_memory(error):
            raise
        reason = error if isinstance(error, UserError) else "memory ran out."
        _logger.warning("No pictures were sampled at step %d, and training goes on: %s", done, reason)


class Gradient:
    """The gradient of a batch, in as few passes as memory allows: the same sum however it is split.

    micro_batch: pictures a forward pass where the options do not fix them; None: as free memory allows.
    Raises UserError if memory does not hold one picture.
    """

    def __init__(
        self, model: PartCraft, capture: AttentionCapture, options: TrainOptions, *, micro_batch: int | None = None
    ):
        self._model, self._capture, self._options = model, capture, options
        self._noise_schedule = DDPMScheduler.from_config(model.own_scheduler.config)
        unet = model.pipeline.unet
        if options.gradient_checkpointing:
            unet.enable_gradient_checkpointing()
            unet.train()  # diffusers checkpoints in training mode alone; the U-Net has no other use for the mode
        chosen = options.micro_batch or micro_batch or choose_micro_batch(model, capture, options.batch_size)
        self.micro_batch = min(chosen, options.batch_size)
        if options.compile:
            compile_networks((unet, *model.prompts.text_encoders), model.device, graphs=True)
            _logger.info("U-Net and text encoders are compiled in the first step, which takes minutes.")

    def __call__(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Accumulate the gradient of the batch's mean loss; returns the losses, detached.

        Where memory runs out, this batch and all that follow are taken in passes of half the size.
        """
        with one_sentence_if_not_compiled("train.compile"):
            losses, self.micro_batch = as_many_as_fit(
                lambda pictures: self._accumulate(batch, pictures),
                self.micro_batch,
                doing="training",
                remedy="give train.gradient_checkpointing=true",
            )
        return losses

    def _accumulate(self, batch: Batch, pictures: int) -> dict[str, torch.Tensor]:
        if pictures < self.micro_batch:  # again, after memory ran out half-way
            for parameter in self._model.trainable().values():
                parameter.grad = None
        if self._options.compile and pictures < len(batch):
            # CUDA graphs make the gradients of the next pass in the place of those of the last: here they are added up.
            for parameter in self._model.trainable().values():
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        sums: dict[str, torch.Tensor] = {}
        for piece in batch.split(pictures):
            losses = training_loss(self._model, self._capture, self._noise_schedule, piece, self._options)
            share = len(piece) / len(batch)
            (losses["loss"] * share).backward()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0) + value.detach() * share
        return sums


def _diverged(step: int, what: str) -> UserError:
    return UserError(
        f"Training came to nothing in step {step}, {what} is no finite number: give a smaller train.learning_rate, or "
        "base.precision=float32; the last checkpoint is kept as it was."
    )


class _Finite:
    """Whether loss and gradient are finite, asked of the device seldom: each time it would be waited for."""

    def __init__(self, step: int):
        self._first = step
        self._sum = torch.tensor(0.0)
        self._steps = torch.tensor(0)

    def add(self, loss: torch.Tensor, norm: torch.Tensor) -> None:
        """A step's loss and its gradient's norm."""
        self._sum = self._sum + loss + norm  # once it is not finite, it stays so
        self._steps = self._steps + self._sum.isfinite()

    def check(self) -> None:
        """Raises UserError if there was a step whose loss or gradient was not."""
        if not self._sum.isfinite():
            raise _diverged(self._first + int(self._steps) + 1, "whose loss or gradient")


class _Trainer:
    """AdamW over named parameters, their moving average, and its state on disk.

    micro_batch: pictures a forward pass, kept with the checkpoint, as sums round as they are split.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], options: TrainOptions, folder: Path, fingerprint: str):
        self._parameters = parameters
        self._options = options
        self._checkpoint = folder / "checkpoint.safetensors"
        self._losses = folder / "losses.csv"
        self._fingerprint = fingerprint
        unet = [parameter for name, parameter in parameters.items() if name.startswith("unet.")]
        encoder = [
            parameter for name, parameter in parameters.items() if name != _TABLE and not name.startswith("unet.")
        ]
        rate = options.learning_rate * options.unet_learning_rate_factor
        if options.unet == "lora":
            rate *= options.lora_learning_rate_factor
        groups = [
            {"params": unet, "weight_decay": options.weight_decay, "lr": rate},
            {"params": encoder, "weight_decay": options.weight_decay},
            {"params": [parameters[_TABLE]], "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=options.learning_rate, fused=True)
        self._rates = [group["lr"] for group in self._optimizer.param_groups]
        averaged = parameters if options.average else {}
        self._averages = {name: parameter.detach().clone() for name, parameter in averaged.items()}
        self.micro_batch: int | None = None

    def step(self, step: int) -> torch.Tensor:
        """Returns the gradient's norm before it was clipped. step: the number of steps done before."""
        warm = min(1.0, (step + 1) / self._options.warmup_steps) if self._options.warmup_steps else 1.0
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = warm * rate
        table = self._parameters[_TABLE]
        norm = nn.utils.clip_grad_norm_(self._parameters.values(), self._options.max_gradient_norm)
        # AdamW would shrink every row in every step, and so erode variants that are seldom seen.
        assert table.grad is not None  # every prompt has a token of a part
        used = (table.grad != 0).any(1, keepdim=True)
        shrink = 1 - warm * self._options.learning_rate * self._options.weight_decay
        table.data.mul_(torch.where(used, shrink, 1.0))
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._options.average:  # of few steps it is their mean
            fresh = 1 - min(self._options.average, (step + 1) / (step + 10))
            for name, average in self._averages.items():
                average.lerp_(self._parameters[name].detach(), fresh)
        return norm

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Within, parameters are their averages, where there are any."""
        kept = {name: self._parameters[name].detach().clone() for name in self._averages}
        self.end()
        try:
            yield
        finally:
            for name, weight in kept.items():
                self._parameters[name].data.copy_(weight)

    def end(self) -> None:
        """Leave the averages in the parameters' place, where there are any."""
        for name, average in self._averages.items():
            self._parameters[name].data.copy_(average)

    def save(self, step: int, history: list[dict]) -> None:
        state = {}
        for name, parameter in self._parameters.items():
            moments = self._optimizer.state[parameter]
            state[f"weights/{name}"] = parameter.detach()
            state[f"first/{name}"] = moments["exp_avg"]
            state[f"second/{name}"] = moments["exp_avg_sq"]
        state |= {f"average/{name}": average for name, average in self._averages.items()}
        if not all(tensor.isfinite().all() for tensor in state.values()):
            raise _diverged(step, "after which some weight")
        state = {name: tensor.cpu().contiguous() for name, tensor in state.items()}
        # One entry: safetensors writes several in random order, and checkpoints are compared by their bytes.
        facts = {"step": step, "fingerprint": self._fingerprint, "micro_batch": self.micro_batch}
        metadata = {"training": json.dumps(facts)}
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
        step, self.micro_batch = metadata["step"], metadata["micro_batch"]
        for name, parameter in self._parameters.items():
            parameter.data.copy_(state[f"weights/{name}"])
            if name in self._averages:
                self._averages[name].copy_(state[f"average/{name}"])
            self._optimizer.state[parameter] = {
                "step": torch.tensor(float(step), device=parameter.device),
                # In the parameter's own layout: AdamW's kernels go through both by their places in memory.
                "exp_avg": torch.empty_like(parameter).copy_(state[f"first/{name}"]),
                "exp_avg_sq": torch.empty_like(parameter).copy_(state[f"second/{name}"]),
            }
        history = pd.read_csv(self._losses)
        return step, history[history["step"] <= step].to_dict("records")
