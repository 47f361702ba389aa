"""Pictures on disk from codes, beside the authors' way: one at a time, 30 steps of the default sampler."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import PNDMScheduler

from measure import Result, side_by_side
from partcraft_kedro.devices import half_precision
from partcraft_kedro.generation.sampling import Sampler, write_pictures
from partcraft_kedro.options import SamplingOptions
from partcraft_kedro.prompts import compose_prompt
from subjects.world import World, fresh_model

_SAMPLING = SamplingOptions(
    steps=20, scheduler="dpm-solver++", guidance_scale=2.0, guidance_rescale=0.5, negative_prompt="", batch_size=16
)


def measure(world: World, rounds: int) -> tuple[list[Result], dict]:
    def way(precision: str, **changes: object) -> Callable[[], int]:
        model = fresh_model(precision)
        if changes.get("scheduler") == "model":  # as Stable Diffusion 1.5 comes
            leading = {"skip_prk_steps": True, "timestep_spacing": "leading"}
            model.own_scheduler = PNDMScheduler.from_config(model.own_scheduler.config, **leading)
        options = _SAMPLING.model_copy(update=changes)
        count = 16 if options.batch_size > 1 else 4
        prompts = [compose_prompt(code) for code in world.cache.codes[:count]]
        names = [str(i) for i in range(count)]

        def run() -> int:
            with tempfile.TemporaryDirectory() as folder:
                write_pictures(Sampler(model, options, 0), prompts, names, names, "0" * 16, Path(folder))
            return count

        return run

    ways = {
        "published: one at a time, 30 steps, PNDM": way("float32", steps=30, batch_size=1, scheduler="model"),
        "one at a time, 20 steps, DPM-Solver++": way("float32", batch_size=1),
        "ours, float32": way("float32"),
    }
    if half_precision("cpu") is torch.bfloat16:
        ways["ours, bfloat16"] = way("bfloat16")
    return side_by_side("sampling", "picture", ways, rounds=rounds), {}
