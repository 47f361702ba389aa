"""Sampling against diffusers' own pipeline, and what is on disk when it is broken off."""

from functools import partial

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, PNDMScheduler
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensor

from partcraft_kedro.errors import UserError
from partcraft_kedro.generation.plan import looked_path
from partcraft_kedro.generation.recipes import read_recipe
from partcraft_kedro.generation.sampling import Sampler, sample_pictures, to_images, write_pictures
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.options import SamplingOptions
from partcraft_kedro.randomness import torch_generator

PROMPTS, NAMES = ["a photo of a [0,1] [1,2]", "a photo of a bird", "a photo of a [2,0]"], ["one", "two", "three"]
ADAPTER = "0123456789abcdef"


def options(**changes) -> SamplingOptions:
    defaults = {"steps": 3, "scheduler": "dpm-solver++", "guidance_scale": 2.0, "guidance_rescale": 0.0}
    return SamplingOptions(**defaults | {"negative_prompt": "striped", "batch_size": 2} | changes)


@pytest.fixture(scope="module")
def model(create_tiny) -> PartCraft:
    fresh = create_tiny()
    # As Stable Diffusion 1.5 comes.
    leading = {"skip_prk_steps": True, "timestep_spacing": "leading"}
    fresh.own_scheduler = PNDMScheduler.from_config(fresh.own_scheduler.config, **leading)
    return fresh


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ("dpm-solver++", partial(DPMSolverMultistepScheduler.from_config, algorithm_type="dpmsolver++")),
        ("sde-dpm-solver++", partial(DPMSolverMultistepScheduler.from_config, algorithm_type="sde-dpmsolver++")),
        ("model", PNDMScheduler.from_config),
    ],
)
def test_a_picture_is_what_the_pipeline_draws_of_its_prompt(model: PartCraft, scheduler: str, expected) -> None:
    found = sample_pictures(model, PROMPTS, NAMES, options(scheduler=scheduler), seed=3)[1]
    model.pipeline.scheduler = expected(model.own_scheduler.config)
    generator = torch_generator(3, "picture", "two")
    drawn = model.pipeline(
        PROMPTS[1],
        negative_prompt="striped",
        latents=torch.randn((1, 4, 64, 64), generator=generator),
        generator=generator,
        num_inference_steps=3,
        guidance_scale=2.0,
        output_type="pt",
    ).images[0]
    torch.testing.assert_close(found, drawn, atol=1e-3, rtol=0)


def test_noise_that_a_model_s_own_scheduler_adds_is_the_picture_s_too(create_tiny) -> None:
    model = create_tiny()
    model.own_scheduler = DDPMScheduler.from_config(model.own_scheduler.config)
    of_model = options(scheduler="model")
    together, [alone] = (sample_pictures(model, PROMPTS[i:], NAMES[i:], of_model, seed=3) for i in (0, 2))
    torch.testing.assert_close(together[2], alone, atol=1e-3, rtol=0)


def test_in_bfloat16_pictures_change_by_rounding_alone(model: PartCraft, create_tiny) -> None:
    half = create_tiny("bfloat16")
    half.own_scheduler = model.own_scheduler
    full, rounded = (sample_pictures(of, PROMPTS, NAMES, options(steps=8), seed=3) for of in (model, half))
    assert rounded.dtype == torch.float32
    assert 0 < (full - rounded).abs().mean() < 1 / 255


def test_pictures_are_decoded_in_float32_as_ceilings_are(create_tiny) -> None:
    half = create_tiny("bfloat16")
    types = []
    half.pipeline.vae.decoder.conv_out.register_forward_hook(lambda _, __, output: types.append(output.dtype))
    sample_pictures(half, PROMPTS, NAMES, options(), seed=3)
    assert set(types) == {torch.float32}


def test_no_more_pictures_a_pass_than_asked_for_and_than_fit(create_tiny, caplog) -> None:
    model, passes = create_tiny(), []
    sample_pictures(model, PROMPTS, NAMES, options(steps=1, batch_size=3), seed=3)

    def count(_: torch.nn.Module, arguments: tuple) -> None:
        if isinstance(arguments[0], FakeTensor):  # of the estimate, which knows nothing of this hook
            return
        passes.append(len(arguments[0]) // 2)  # guidance draws each twice
        torch.empty(2**50 if passes[-1] > 2 else 1)

    model.pipeline.unet.conv_in.register_forward_pre_hook(count)
    expected = sample_pictures(model, PROMPTS, NAMES, options(steps=1, batch_size=2), seed=3)
    assert passes == [2, 1]
    passes.clear()
    found = sample_pictures(model, [*PROMPTS, *PROMPTS], [*NAMES, *NAMES], options(steps=1, batch_size=5), seed=3)
    assert passes == [5, 2, 2, 2]
    torch.testing.assert_close(found, torch.cat([expected, expected]), atol=1e-4, rtol=0)
    assert "going on with passes of 2 instead of 5 pictures" in caplog.text


def test_a_batch_that_memory_does_not_hold_leaves_no_maps(create_tiny, monkeypatch) -> None:
    model, maps = create_tiny(), []
    decode = model.pipeline.vae.decode

    def decode_one(latents: torch.Tensor):
        torch.empty(2**50 if len(latents) > 1 else 1)
        return decode(latents)

    monkeypatch.setattr(model.pipeline.vae, "decode", decode_one)
    sampler = Sampler(model, options(steps=1, batch_size=2), seed=3, attention=maps)
    assert len(list(sampler.batches(PROMPTS[:2], NAMES[:2]))) == len(maps) == 2


def test_what_is_no_picture_is_not_taken_for_a_black_one(create_tiny) -> None:
    model = create_tiny()
    model.pipeline.unet.conv_out.bias.data.fill_(torch.nan)
    with pytest.raises(UserError, match=r"base\.precision=float32"):
        to_images(sample_pictures(model, PROMPTS, NAMES, options(), seed=3))


def test_batches_that_are_whole_are_kept_and_the_others_drawn(model: PartCraft, tmp_path) -> None:
    write_pictures(Sampler(model, options(), 3), PROMPTS, NAMES, NAMES, ADAPTER, tmp_path / "whole")
    write_pictures(Sampler(model, options(), 3), PROMPTS, NAMES, NAMES, ADAPTER, tmp_path / "broken")
    (tmp_path / "broken/two.png").unlink()  # of the first batch
    (tmp_path / "broken/three.png").write_bytes(b"kept")  # the second batch
    write_pictures(Sampler(model, options(), 3), PROMPTS, NAMES, NAMES, ADAPTER, tmp_path / "broken")
    for name in ("one", "two"):
        assert (tmp_path / f"broken/{name}.png").read_bytes() == (tmp_path / f"whole/{name}.png").read_bytes()
    assert (tmp_path / "broken/three.png").read_bytes() == b"kept"
    assert {path.name for path in (tmp_path / "whole").iterdir()} == {f"{name}.png" for name in NAMES} | {"looked"}


def test_a_picture_has_the_noise_it_is_given_and_tells_where_its_tokens_looked(model: PartCraft, tmp_path) -> None:
    """Two of one prompt and one noise are one picture; each place is the token's that looks at it most."""
    maps: list[torch.Tensor] = []
    (drawn,) = Sampler(model, options(), 3, attention=maps).batches([PROMPTS[0]] * 2, ["one", "two"])
    write_pictures(Sampler(model, options(), 3), [PROMPTS[0]] * 2, ["a", "b"], ["two", "two"], ADAPTER, tmp_path)
    first, second = (Image.open(tmp_path / f"{name}.png") for name in "ab")
    assert first.tobytes() == second.tobytes() == to_images(drawn)[1].tobytes() != to_images(drawn)[0].tobytes()
    assert read_recipe(tmp_path / "a.png").noise == "two"
    looked = np.asarray(Image.open(looked_path(tmp_path / "a.png")))
    assert np.array_equal(looked, maps[0][1].argmax(0)) and set(np.unique(looked)) <= {0, 1}  # the prompt's two parts


def test_a_folder_that_cannot_be_written_ends_the_run(model: PartCraft, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"one\.png cannot be written \(Not a directory: "):
        write_pictures(Sampler(model, options(), 3), PROMPTS[:1], NAMES[:1], NAMES[:1], ADAPTER, tmp_path / "file")
