"""The studio, on tiny with part tokens that nobody trained: what it draws is no bird, and all else is as it must be."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from partcraft_kedro.compose.studio import Studio
from partcraft_kedro.errors import UserError
from partcraft_kedro.generation.sampling import Sampler, sample_pictures, to_images
from partcraft_kedro.options import BaseModelOptions, SamplingOptions

SAMPLING = SamplingOptions(steps=2, guidance_scale=2.0, guidance_rescale=0.5)  # the fixture's
PROMPT = "a photo of a [1,2] <lower:3>, on sand"


def test_a_picture_is_what_sampling_draws(studio: Studio) -> None:
    [made] = studio.make(PROMPT, seed=4, noises=["mine"])
    [expected] = to_images(sample_pictures(studio.model, ["a photo of a [1,2] [2,3], on sand"], ["mine"], SAMPLING, 4))
    # Five layers compute attention written out, so that it can be seen.
    assert np.abs(np.asarray(made.picture).astype(int) - np.asarray(expected)).max() <= 1
    assert made.recipe.prompt == "a photo of a [1,2] [2,3], on sand"


def test_the_same_recipe_makes_the_same_picture(studio: Studio) -> None:
    made = studio.make(PROMPT, seed=1, noises=["0", "1"])
    recipe = studio.check(made[1].recipe)
    again = studio.make(recipe.prompt, seed=recipe.seed, noises=[recipe.noise], sampling=recipe.sampling)
    difference = np.asarray(again[0].picture).astype(int) - np.asarray(made[1].picture)
    assert np.abs(difference).max() <= 1  # batches of other sizes round differently
    assert np.abs(np.asarray(made[0].picture).astype(int) - np.asarray(made[1].picture)).max() > 30


def test_what_arrived_is_what_the_predictor_finds(studio: Studio) -> None:
    [made] = studio.make(PROMPT)
    code = studio._predictor.predict(np.asarray(made.picture)[None])[0]
    assert made.seen.code == [None if variant < 0 else variant for variant in code]
    assert made.arrived == {1: bool(code[1] == 2), 2: bool(code[2] == 3)}
    seen = dataclasses.replace(made.seen, code=[None, 2, 0])
    assert dataclasses.replace(made, seen=seen).arrived == {1: True, 2: False}


def test_attention_is_the_mean_over_steps_of_what_each_token_drew(studio: Studio) -> None:
    """Of tokens that the prompt lacks nothing is told; all tokens together, words too, share one."""
    maps: list[torch.Tensor] = []
    sampler = Sampler(studio.model, SAMPLING.model_copy(update={"steps": 3}), 0, attention=maps)
    list(sampler.batches(["a photo of a [2,1]", "a [1,0] [2,0]"], ["0", "1"]))
    [maps_of_batch] = maps
    assert maps_of_batch.shape == (2, 3, 16, 16)
    assert [bool(of_token.any()) for of_token in maps_of_batch.flatten(0, 1)] == [False, False, True, False, True, True]
    assert (maps_of_batch.sum(1) < 1).all()
    [made] = studio.make("a photo of a [2,1]", noises=["0"], sampling=SAMPLING.model_copy(update={"steps": 3}))
    assert made.attention.keys() == {2}
    np.testing.assert_allclose(made.attention[2], maps_of_batch[0, 2], atol=1e-3)


def test_without_guidance_there_is_no_negative_half(studio: Studio) -> None:
    maps: list[torch.Tensor] = []
    sampler = Sampler(studio.model, SAMPLING.model_copy(update={"guidance_scale": 1.0}), 0, attention=maps)
    list(sampler.batches(["a photo of a [2,1]"], ["0"]))
    assert maps[0][0, 2].any()


def test_steps_are_told_and_what_is_raised_there_ends_the_drawing(studio: Studio) -> None:
    steps: list[tuple[int, int]] = []

    def on_step(done: int, count: int) -> None:
        steps.append((done, count))
        if done == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        studio.make(PROMPT, sampling=SAMPLING.model_copy(update={"steps": 5}), on_step=on_step)
    assert steps == [(1, 5), (2, 5)]
    assert studio.make(PROMPT)  # and the studio goes on


def test_a_picture_of_the_dataset_has_its_own_code(studio: Studio) -> None:
    """Drawings have the size that the features are taken at."""
    for id in studio.palette.records["id"][:4]:
        seen = studio.look_at(studio.palette.picture(id, 128))
        assert seen.code == studio.palette.code_of(id)
        assert all(0 < cosine <= 1.001 for cosine, variant in zip(seen.cosine, seen.code, strict=True) if variant)


def test_of_a_long_picture_the_middle_is_seen_and_of_a_panorama_nothing(studio: Studio) -> None:
    square = studio.palette.picture("000", 128)
    wide = Image.new("RGB", (256, 128), "white")
    wide.paste(square, (64, 0))
    assert studio.look_at(wide).code == studio.look_at(square).code
    with pytest.raises(UserError, match=r"20000 × 1000 pixels.*crop it"):
        studio.look_at(Image.new("RGB", (20_000, 1000)))


def test_an_unknown_token_is_told(studio: Studio) -> None:
    with pytest.raises(UserError, match=r"<head:1> names part 'head'"):
        studio.make("a <head:1>")
    with pytest.raises(UserError, match="variant 9"):
        studio.make("a [1,9]")


def test_before_training_there_are_palettes_and_a_sentence(studio: Studio) -> None:
    untrained = Studio(studio.palette, studio._predictor, BaseModelOptions(device="cpu"), SAMPLING)
    assert untrained.version is None
    assert untrained.look_at(studio.palette.picture("000", 128)).code == studio.palette.code_of("000")
    with pytest.raises(UserError, match=r"run `kedro run --pipelines=train`"):
        untrained.make(PROMPT)


def test_a_recipe_of_another_adapter_names_it(studio: Studio, create_tiny, tmp_path) -> None:
    recipe = studio.make(PROMPT)[0].recipe
    with pytest.raises(UserError, match=r"an adapter that is not here \(0{16}\)"):
        studio.check(recipe.model_copy(update={"adapter": "0" * 16}))
    other = tmp_path / "adapter"
    create_tiny().save_adapter(other, {"seed": 9})
    elsewhere = Studio(
        studio.palette,
        studio._predictor,
        BaseModelOptions(device="cpu"),
        SAMPLING,
        other,
        {"1": other, "2": studio.adapter},
    )
    with pytest.raises(UserError, match="--adapter=2"):
        elsewhere.check(recipe)


def test_an_adapter_for_other_parts_is_refused(studio: Studio, adapter, tmp_path) -> None:
    predictor = studio._predictor
    fewer = type(predictor)(
        predictor.scene, predictor.parts, [v[:2] for v in predictor.variants], discovery="plain",
        features=predictor.features, min_patches=2, device="cpu",
    )  # fmt: skip
    base = BaseModelOptions(device="cpu", precision="float32")
    with pytest.raises(UserError, match="made for other parts"):
        Studio(studio.palette, fewer, base, SAMPLING, adapter).make(PROMPT)
