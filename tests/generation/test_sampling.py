"""Sampling against diffusers' own pipeline, and what is on disk when it is broken off."""

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, PNDMScheduler

from partcraft_kedro.generation.sampling import sample_pictures, write_pictures
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.options import SamplingOptions
from partcraft_kedro.randomness import torch_generator

PROMPTS, NAMES = ["a photo of a [0,1] [1,2]", "a photo of a bird", "a photo of a [2,0]"], ["one", "two", "three"]


def options(**changes) -> SamplingOptions:
    defaults = {"steps": 3, "sampler": "dpm-solver++", "guidance": 2.0, "guidance_rescale": 0.0}
    return SamplingOptions(**defaults | {"negative_prompt": "striped", "batch_size": 2} | changes)


@pytest.fixture(scope="module")
def model(create_tiny) -> PartCraft:
    fresh = create_tiny()
    # As Stable Diffusion 1.5 comes.
    leading = {"skip_prk_steps": True, "timestep_spacing": "leading"}
    fresh.own_scheduler = PNDMScheduler.from_config(fresh.own_scheduler.config, **leading)
    return fresh


@pytest.mark.parametrize(
    ("sampler", "scheduler"), [("dpm-solver++", DPMSolverMultistepScheduler), ("model", PNDMScheduler)]
)
def test_a_picture_is_what_the_pipeline_draws_of_its_prompt(model: PartCraft, sampler: str, scheduler: type) -> None:
    found = sample_pictures(model, PROMPTS, NAMES, options(sampler=sampler), seed=3)[1]
    model.pipeline.scheduler = scheduler.from_config(model.own_scheduler.config)
    expected = model.pipeline(
        PROMPTS[1],
        negative_prompt="striped",
        latents=torch.randn((1, 4, 64, 64), generator=torch_generator(3, "picture", "two")),
        num_inference_steps=3,
        guidance_scale=2.0,
        output_type="pt",
    ).images[0]
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_in_bfloat16_pictures_change_by_rounding_alone(model: PartCraft, create_tiny) -> None:
    half = create_tiny("bfloat16")
    full, rounded = (sample_pictures(of, PROMPTS, NAMES, options(steps=8), seed=3) for of in (model, half))
    assert rounded.dtype == torch.float32
    assert 0 < (full - rounded).abs().mean() < 4 / 255


def test_batches_that_are_whole_are_kept_and_the_others_drawn(model: PartCraft, tmp_path) -> None:
    write_pictures(model, PROMPTS, NAMES, options(), 3, tmp_path / "whole")
    write_pictures(model, PROMPTS, NAMES, options(), 3, tmp_path / "broken")
    (tmp_path / "broken/two.png").unlink()  # of the first batch
    (tmp_path / "broken/three.png").write_bytes(b"kept")  # the second batch
    write_pictures(model, PROMPTS, NAMES, options(), 3, tmp_path / "broken")
    for name in ("one", "two"):
        assert (tmp_path / f"broken/{name}.png").read_bytes() == (tmp_path / f"whole/{name}.png").read_bytes()
    assert (tmp_path / "broken/three.png").read_bytes() == b"kept"
    assert len(list((tmp_path / "whole").iterdir())) == 3


def test_a_folder_that_cannot_be_written_ends_the_run(model: PartCraft, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        write_pictures(model, PROMPTS[:1], NAMES[:1], options(), 3, tmp_path / "file")
