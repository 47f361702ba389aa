"""The step against an independent reference, the loop against interruption."""

import functools
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import DDPMScheduler
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch._subclasses.fake_tensor import FakeTensor

from partcraft_kedro.errors import FullDisk, UserError
from partcraft_kedro.generation.sampling import sample_pictures
from partcraft_kedro.images.tensors import to_vae
from partcraft_kedro.model import attention as model_attention
from partcraft_kedro.model.attention import AttentionCapture, attention_layers
from partcraft_kedro.model.base import load_base
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.options import SamplingOptions, TrainOptions
from partcraft_kedro.training.cache import TrainingCache, write_latents
from partcraft_kedro.training.loop import Gradient, train
from partcraft_kedro.training.ranks import Ranks
from partcraft_kedro.training.step import _at_locations, draw_batch, training_loss

VARIANTS = [3, 4, 4]


def options(**changes) -> TrainOptions:
    defaults = {
        "method": "partcraft",
        "steps": 4,
        "batch_size": 2,
        "micro_batch": None,
        "gradient_checkpointing": False,
        "compile": False,
        "learning_rate": 1e-3,
        "weight_decay": 0.1,
        "attention_weight": 0.01,
        "rank": 2,
        "lora_layers": "cross",
        "bottleneck_layers": 2,
        "template_probability": 0.0,
        "snr_gamma": None,
        "max_gradient_norm": 1.0,
        "warmup_steps": 0,
        "average": None,
        "token_start": "random",
        "lora_learning_rate_factor": 1.0,
        "stratified_timesteps": False,
        "checkpoint_every": 2,
        "log_every": 1,
        "sample_every": 100,
        "seed": 0,
    }
    return TrainOptions(**defaults | changes)


def fresh_model(of: TrainOptions, precision: str = "float32") -> PartCraft:
    return PartCraft.create(
        "tiny",
        "cpu",
        precision,
        variants=VARIANTS,
        unet=of.unet,
        rank=of.rank,
        lora_layers=of.lora_layers,
        bottleneck_layers=of.bottleneck_layers,
        seed=of.seed,
    )


@pytest.fixture
def cache() -> TrainingCache:
    rng = np.random.default_rng(0)
    latents = torch.from_numpy(rng.standard_normal((2, 5, 4, 64, 64))).half()
    label_maps = torch.from_numpy(rng.integers(0, 3, (5, 16, 16), dtype=np.uint8))
    codes = np.array([[0, 1, 2], [1, -1, 0], [2, 3, 1], [0, 0, 0], [1, 2, -1]])
    mean, std = (list(tensor.split(3, dim=1)) for tensor in (latents, latents.abs() * 0.1))
    return TrainingCache(mean, std, torch.stack([label_maps, label_maps.flip(-1)]), codes)


def weights(model: PartCraft) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.trainable().items()}


def test_only_cross_attention_lora_and_the_part_encoder_learn() -> None:
    names = fresh_model(options()).trainable()
    lora = [name for name in names if name.startswith("unet.")]
    assert lora and all("attn2" in name and "lora" in name for name in lora)
    assert {name.split(".")[0] for name in names} == {"unet", "part_encoder"}
    everywhere = fresh_model(options(lora_layers="all")).trainable()
    assert any("attn1" in name for name in everywhere)


@pytest.mark.parametrize(
    ("unet", "learns"),
    [("frozen", lambda name: False), ("key_value", lambda name: ".attn2.to_k." in name or ".attn2.to_v." in name)],
)
def test_no_more_of_the_unet_learns_than_asked_for(unet: str, learns) -> None:
    model = fresh_model(options(unet=unet))
    expected = {f"unet.{name}" for name, _ in model.pipeline.unet.named_parameters() if learns(name)}
    assert {name for name in model.trainable() if name.startswith("unet.")} == expected
    assert bool(expected) == (unet != "frozen")


def test_the_unet_learns_at_its_own_rate(cache: TrainingCache, tmp_path) -> None:
    """AdamW's first step moves every weight by its rate, whatever the gradient's size."""
    of = options(steps=1, unet="full", unet_learning_rate_factor=0.25, learning_rate=1e-3, weight_decay=0.0)
    model = fresh_model(of)
    before = weights(model)
    train(model, cache, of, tmp_path, "f")
    moved = {name: (weight - before[name]).abs().max().item() for name, weight in weights(model).items()}
    assert moved["unet.conv_in.weight"] == pytest.approx(0.25e-3, rel=1e-2)
    assert moved["part_encoder.bottleneck.0.weight"] == pytest.approx(1e-3, rel=1e-2)


def test_union_sampling_names_every_subset_of_the_parts(cache: TrainingCache) -> None:
    """As many prompts with one as with two and with all of a picture's parts, and none that it lacks."""
    of = options(union_sampling=True, batch_size=300)
    batch = draw_batch(fresh_model(of), cache, of, step=0)
    named = (batch.columns >= 0).numpy()
    counts = np.bincount(named.sum(1), minlength=4) / 300
    # Two of five pictures lack a part: one token in 3/5 · 1/3 + 2/5 · 1/2 of the prompts, and so on.
    assert counts == pytest.approx([0, 0.4, 0.4, 0.2], abs=0.08)
    everything = draw_batch(fresh_model(of), cache, options(batch_size=300), step=0)
    assert not (named & ~(everything.columns >= 0).numpy()).any()


def test_the_masked_loss_by_hand(cache: TrainingCache) -> None:
    """The mean over all places of the squared error where a named part is, and of 0 elsewhere."""
    of = options(union_sampling=True, masked_loss=True, attention_weight=0.0)
    model = fresh_model(of)
    schedule = DDPMScheduler.from_config(model.own_scheduler.config)
    batch = draw_batch(model, cache, of, step=0)
    with AttentionCapture(model.pipeline.unet) as capture, torch.no_grad():
        found = training_loss(model, capture, schedule, batch, of)["loss"]
        noisy = schedule.add_noise(batch.latents, batch.noise, batch.timesteps)
        predicted = model.predict(noisy, batch.timesteps, model.prompts.encode(batch.ids))
    errors = (predicted - schedule.get_velocity(batch.latents, batch.noise, batch.timesteps)).square()
    expected, left_out = 0.0, 0
    for i in range(2):
        for y in range(64):
            for x in range(64):
                cell = batch.masks[i, :, y // 4, x // 4]
                if any(bool(cell[m]) and batch.columns[i, m] >= 0 for m in range(3)):
                    expected += errors[i, :, y, x].sum().item()
                else:
                    left_out += 1
    assert found.item() == pytest.approx(expected / errors.numel(), rel=1e-4)
    assert left_out > 0


def test_loss_equals_a_reference_written_out(cache: TrainingCache) -> None:
    """v-prediction squared error and Eq. 5, computed with loops and diffusers' default attention."""
    of = options(attention_weight=0.5)
    model = fresh_model(of)
    schedule = DDPMScheduler.from_config(model.pipeline.scheduler.config)
    batch = draw_batch(model, cache, of, step=1)
    with AttentionCapture(model.pipeline.unet) as capture:
        losses = training_loss(model, capture, schedule, batch, of)

    alpha = schedule.alphas_cumprod[batch.timesteps].double()
    noisy, target = torch.zeros(batch.latents.shape), torch.zeros(batch.latents.shape)
    for i in range(2):
        noisy[i] = alpha[i].sqrt() * batch.latents[i] + (1 - alpha[i]).sqrt() * batch.noise[i]
        target[i] = alpha[i].sqrt() * batch.noise[i] - (1 - alpha[i]).sqrt() * batch.latents[i]
    kept = {}
    unet = model.pipeline.unet

    def keep(name):
        def hook(layer, arguments, keywords):
            words = keywords["encoder_hidden_states"]
            kept[name] = layer.get_attention_scores(
                layer.head_to_batch_dim(layer.to_q(arguments[0])), layer.head_to_batch_dim(layer.to_k(words))
            )

        return hook

    handles = [
        unet.get_submodule(name).register_forward_pre_hook(keep(name), with_kwargs=True)
        for name in attention_layers(unet)
    ]
    predicted = model.predict(noisy, batch.timesteps, model.prompts.encode(batch.ids))
    for handle in handles:
        handle.remove()
    terms = []
    for i in range(2):
        maps = {}
        for m, column in enumerate(batch.columns[i].tolist()):
            if column >= 0:
                of_layers = [scores.unflatten(0, (2, -1))[i, :, :, column].mean(0) for scores in kept.values()]
                maps[m] = sum(of_layers) / len(of_layers)
        total, of_picture = sum(maps.values()), []
        for m, attention in maps.items():
            share, mask = attention / total, batch.masks[i, m].flatten().float()
            of_picture.append(-(mask * share.log() + (1 - mask) * (1 - share).log()).mean())
        terms.append(sum(of_picture) / len(of_picture))
    expected_ldm = (predicted - target).square().mean()
    assert losses["loss_ldm"].item() == pytest.approx(expected_ldm.item(), rel=1e-4)
    assert losses["loss_attention"].item() == pytest.approx((sum(terms) / len(terms)).item(), rel=1e-4)
    assert losses["loss"].item() == pytest.approx((expected_ldm + 0.5 * sum(terms) / len(terms)).item(), rel=1e-4)


def test_mirrored_pictures_come_with_mirrored_masks(cache: TrainingCache) -> None:
    of, model = options(), fresh_model(options())
    seen = set()
    for micro_step in range(6):
        batch = draw_batch(model, cache, of, micro_step)
        for mask in batch.masks:
            labels = mask.float().argmax(0).to(torch.uint8)
            seen |= {flip for flip in (0, 1) if any(torch.equal(labels, maps) for maps in cache.label_maps[flip])}
    assert seen == {0, 1}


def test_every_epoch_shows_every_picture_once(cache: TrainingCache) -> None:
    of, model = options(batch_size=1), fresh_model(options())
    shown = [tuple(draw_batch(model, cache, of, step).columns.ge(0).int().flatten().tolist()) for step in range(5)]
    present = [tuple((code >= 0).astype(int).tolist()) for code in cache.codes]
    assert sorted(shown) == sorted(present)


@pytest.mark.parametrize("method", ["partcraft", "dreambooth"])
def test_a_killed_run_ends_with_the_same_bytes(cache: TrainingCache, tmp_path, method: str) -> None:
    """Also of convolutions, whose weights lie in memory otherwise than in a file."""
    of = options(method=method)
    whole, broken = fresh_model(of), fresh_model(of)
    unbroken = train(whole, cache, of, tmp_path / "whole", "f")

    class Killed(Exception):
        pass

    def kill(step: int, _: dict) -> None:
        if step == 3:
            raise Killed

    with pytest.raises(Killed):
        train(broken, cache, of, tmp_path / "broken", "f", on_log=kill)
    again = fresh_model(of)
    resumed = train(again, cache, of, tmp_path / "broken", "f")
    pd.testing.assert_frame_equal(resumed, unbroken)
    for name, parameter in weights(whole).items():
        assert torch.equal(parameter, weights(again)[name]), name
    first, second = (tmp_path / run / "checkpoint.safetensors" for run in ("whole", "broken"))
    assert first.read_bytes() == second.read_bytes()


def test_a_run_killed_while_it_samples_draws_that_sample_again(cache: TrainingCache, tmp_path) -> None:
    settings = options(steps=4, checkpoint_every=2, sample_every=2)

    def kill(step: int, _: PartCraft) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(fresh_model(settings), cache, settings, tmp_path, "f", on_sample=kill)
    drawn = []
    train(fresh_model(settings), cache, settings, tmp_path, "f", on_sample=lambda step, _: drawn.append(step))
    assert drawn == [2, 4]


def test_a_sample_that_fails_ends_no_training(cache: TrainingCache, tmp_path, caplog) -> None:
    """And comes after the checkpoint."""
    of = options(steps=3, checkpoint_every=1, sample_every=1)
    there = []

    def sample(step: int, _: PartCraft) -> None:
        with safe_open(tmp_path / "checkpoint.safetensors", "pt") as stored:
            there.append(json.loads(stored.metadata()["training"])["step"])
        if step == 1:
            torch.empty(2**50)
        if step == 2:
            raise UserError("A picture is black.")

    train(fresh_model(of), cache, of, tmp_path, "f", on_sample=sample)
    assert there == [1, 2, 3]
    assert [record.getMessage() for record in caplog.records] == [
        "No pictures were sampled at step 1, and training goes on: memory ran out.",
        "No pictures were sampled at step 2, and training goes on: A picture is black.",
    ]

    def mistaken(*_: object) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        train(fresh_model(of), cache, of, tmp_path / "mistaken", "f", on_sample=mistaken)


def test_a_full_disk_ends_it_after_its_checkpoint_and_no_sample_is_missed(cache: TrainingCache, tmp_path) -> None:
    of = options(steps=2, checkpoint_every=1, sample_every=1)
    told = []

    def tell(step: int, *_: object) -> None:
        if step not in told:
            told.append(step)
            raise FullDisk("mlflow.db" if step == 1 else "a.png")

    for _ in range(2):  # at its first step MLflow has no space, at its second the sample
        with pytest.raises(FullDisk):
            train(fresh_model(of), cache, of, tmp_path, "f", **{"on_sample" if told else "on_log": tell})
    drawn = []
    train(fresh_model(of), cache, of, tmp_path, "f", on_sample=lambda step, _: drawn.append(step))
    assert told == [1, 2] and drawn == [2]


@pytest.mark.parametrize("log_every", [1, 4])
def test_a_loss_that_is_no_number_leaves_the_last_checkpoint(cache: TrainingCache, tmp_path, log_every: int) -> None:
    of = options(steps=8, checkpoint_every=2, log_every=log_every)
    train(fresh_model(of), cache, of.model_copy(update={"steps": 2}), tmp_path, "f")
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    for shard in cache.mean:
        shard.fill_(torch.nan)
    with pytest.raises(UserError, match=r"nothing in step 3, whose loss.*train\.learning_rate.*precision=float32"):
        train(fresh_model(of), cache, of, tmp_path, "f")
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


def test_weights_that_are_no_numbers_are_not_kept(cache: TrainingCache, tmp_path) -> None:
    """After the first step the loss is still one, and the weights are infinite."""
    of = options(learning_rate=1e39, checkpoint_every=1)
    with pytest.raises(UserError, match="came to nothing in step 1, after which some weight is no finite number"):
        train(fresh_model(of), cache, of, tmp_path, "f")
    assert not (tmp_path / "checkpoint.safetensors").exists()


def loss_with(cache: TrainingCache, label_maps: torch.Tensor) -> dict[str, torch.Tensor]:
    of = options(attention_weight=1.0)
    model = fresh_model(of)
    cache = replace(cache, label_maps=torch.stack([label_maps, label_maps.flip(-1)]))
    with AttentionCapture(model.pipeline.unet) as capture, torch.no_grad():
        schedule = DDPMScheduler.from_config(model.own_scheduler.config)
        return training_loss(model, capture, schedule, draw_batch(model, cache, of, 0), of)


def test_masks_of_another_grid_are_brought_to_attentions(cache: TrainingCache) -> None:
    """Attention is at 16×16: masks at 8×8 are as their patches in four, at 64×64 each location has a share of each."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 3, (5, 8, 8), generator=generator, dtype=torch.uint8)
    expected = loss_with(cache, coarse.repeat_interleave(2, 1).repeat_interleave(2, 2))
    finer = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)
    for found in (loss_with(cache, coarse), loss_with(cache, finer)):
        for name, value in expected.items():
            assert found[name].item() == pytest.approx(value.item(), rel=1e-5), name
    odd = torch.randint(0, 3, (5, 37, 37), generator=generator, dtype=torch.uint8)
    assert all(value.isfinite() for value in loss_with(cache, odd).values())
    masks = torch.tensor([[[1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 1]]]).bool()[None]
    assert _at_locations(masks, 2, 2).tolist() == [[[[0.5, 0.0], [1.0, 0.25]]]]


def test_a_checkpoint_from_other_options_is_refused(cache: TrainingCache, tmp_path) -> None:
    train(fresh_model(options()), cache, options(steps=2), tmp_path, "these")
    with pytest.raises(UserError, match="other options"):
        train(fresh_model(options()), cache, options(), tmp_path, "those")


def test_a_half_written_checkpoint_is_named(cache: TrainingCache, tmp_path) -> None:
    train(fresh_model(options()), cache, options(steps=2), tmp_path, "f")
    checkpoint = tmp_path / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"checkpoint\.safetensors cannot be read"):
        train(fresh_model(options()), cache, options(), tmp_path, "f")


def test_rows_without_gradient_do_not_decay(cache: TrainingCache, tmp_path) -> None:
    """Variant 3 of part 2 never occurs in the codes, variant 0 of part 0 does."""
    model = fresh_model(options())
    before = weights(model)["part_encoder.variants.weight"]
    train(model, cache, options(), tmp_path, "f")
    after = weights(model)["part_encoder.variants.weight"]
    never, often = 2 * 4 + 3, 0
    assert torch.equal(before[never], after[never])
    assert not torch.equal(before[often], after[often])


def gradients(
    cache: TrainingCache, of: TrainOptions, prepare=lambda model: None, ranks: Ranks | None = None
) -> dict[str, torch.Tensor]:
    """The gradient of one step, with LoRA away from its start, where half of it is zero."""
    ranks = ranks or Ranks()
    model = fresh_model(of)
    prepare(model)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.trainable().values():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    with AttentionCapture(model.pipeline.unet) as capture:
        losses = Gradient(model, capture, of)(ranks.slice_of(draw_batch(model, cache, of, 0)))
    ranks.mean(model.trainable().values(), losses)
    return {name: parameter.grad for name, parameter in model.trainable().items()}


def assert_equal_gradients(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-4 * gradient.abs().max().item())


def test_a_batch_has_the_same_gradient_however_it_is_split(cache: TrainingCache) -> None:
    """Under both losses, and though some pictures lack a part: 4 = 4 = 3 + 1 = 1 + 1 + 1 + 1."""
    of = options(batch_size=4, attention_weight=1.0)
    whole = gradients(cache, of)
    for micro_batch in (3, 1):
        assert_equal_gradients(gradients(cache, of.model_copy(update={"micro_batch": micro_batch})), whole)


def test_gradient_checkpointing_changes_no_gradient(cache: TrainingCache) -> None:
    of = options(attention_weight=1.0, micro_batch=2)
    calls = []

    def count(model: PartCraft) -> None:
        model.pipeline.unet.up_blocks[3].resnets[0].register_forward_pre_hook(lambda *_: calls.append(1))

    plain = gradients(cache, of, count)
    assert len(calls) == 1
    assert_equal_gradients(gradients(cache, of.model_copy(update={"gradient_checkpointing": True}), count), plain)
    assert len(calls) == 3  # once more in the backward pass


def test_compilation_takes_the_whole_network_and_changes_no_gradient(cache: TrainingCache, monkeypatch) -> None:
    """Traced without a break, its backward pass derived from the trace; the generation of machine code is left out,
    which takes minutes (benchmarks/suite.py)."""
    traced = functools.partialmethod(torch.nn.Module.compile, backend="aot_eager", fullgraph=True)
    of = options(attention_weight=1.0)
    plain = gradients(cache, of)
    torch._dynamo.utils.counters.clear()
    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    found = gradients(cache, of.model_copy(update={"compile": True}))
    assert torch._dynamo.utils.counters["stats"]["calls_captured"] > 500
    assert_equal_gradients(found, plain)


def test_pictures_in_the_middle_of_a_compiled_training_compile_nothing(
    cache: TrainingCache, tmp_path, monkeypatch
) -> None:
    traced = functools.partialmethod(torch.nn.Module.compile, backend="aot_eager")
    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    of = options(compile=True, steps=2, sample_every=1)
    sampling = SamplingOptions(
        steps=1, scheduler="dpm-solver++", guidance_scale=2.0, guidance_rescale=0.0, negative_prompt="", batch_size=3
    )
    graphs = torch._dynamo.utils.counters["stats"]

    def sample(_: int, model: PartCraft) -> None:
        before = graphs["unique_graphs"]
        sample_pictures(model, ["a [0,1]"] * 3, ["a", "b", "c"], sampling, 0)
        assert graphs["unique_graphs"] == before > 0

    train(fresh_model(of), cache, of, tmp_path, "f", on_sample=sample)


def test_memory_that_runs_out_halves_the_passes_and_nothing_else(cache: TrainingCache, tmp_path, caplog) -> None:
    def little_memory(limit: int, model: PartCraft) -> None:
        def allocate(_: torch.nn.Module, arguments: tuple) -> None:
            if len(arguments[0]) > limit and not isinstance(arguments[0], FakeTensor):  # of the estimate
                raise torch.OutOfMemoryError("CUDA out of memory.")

        model.pipeline.unet.conv_in.register_forward_pre_hook(allocate)

    of = options(batch_size=4, micro_batch=4, attention_weight=1.0)
    whole = gradients(cache, of)
    assert_equal_gradients(gradients(cache, of, lambda model: little_memory(2, model)), whole)
    assert "going on with passes of 2 instead of 4 pictures" in caplog.text
    assert_equal_gradients(gradients(cache, of, lambda model: little_memory(1, model)), whole)
    with pytest.raises(UserError, match=r"Memory ran out in training with one picture a pass.*gradient_checkpointing"):
        gradients(cache, of, lambda model: little_memory(0, model))
    # A run that is gone on with keeps to the halved passes, unless the option says otherwise.
    of = of.model_copy(update={"micro_batch": None})
    model = fresh_model(of)
    little_memory(2, model)
    train(model, cache, of.model_copy(update={"steps": 2}), tmp_path, "f")
    caplog.clear()
    resumed = fresh_model(of)
    little_memory(2, resumed)
    train(resumed, cache, of, tmp_path, "f")
    assert "Memory ran out" not in caplog.text


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_fused_attention_computes_in_float32_on_a_cpu(cache: TrainingCache, monkeypatch, precision: str) -> None:
    monkeypatch.setattr(model_attention, "_WRITTEN_OUT", 0)
    of = options()
    fused, types = torch.nn.functional.scaled_dot_product_attention, []

    def record(query: torch.Tensor, *arguments: torch.Tensor, **keywords: object) -> torch.Tensor:
        types.append((query.dtype, torch.is_autocast_enabled("cpu")))
        return fused(query, *arguments, **keywords)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", record)
    model = fresh_model(of, precision)
    Gradient(model, AttentionCapture(model.pipeline.unet), of, micro_batch=2)(draw_batch(model, cache, of, 0))
    assert len(types) >= 9  # 6 layers of self-attention, 1 of cross-attention, 2 of the text encoder
    assert set(types) == {(torch.float32, False)}


def test_bfloat16_moves_the_losses_by_rounding_alone(cache: TrainingCache) -> None:
    of = options(batch_size=4, attention_weight=1.0)
    losses = []
    for precision in ("float32", "bfloat16"):
        model = fresh_model(of, precision)
        assert {parameter.dtype for parameter in model.trainable().values()} == {torch.float32}
        schedule = DDPMScheduler.from_config(model.own_scheduler.config)
        with AttentionCapture(model.pipeline.unet) as capture, torch.no_grad():
            losses.append(training_loss(model, capture, schedule, draw_batch(model, cache, of, 0), of))
    assert model.pipeline.unet.dtype == model.pipeline.text_encoder.dtype == torch.bfloat16
    for name, value in losses[0].items():
        assert losses[1][name].dtype == torch.float32
        assert losses[1][name].item() == pytest.approx(value.item(), rel=2e-2), name


def test_latents_are_mapped_from_disk_and_read_as_written(tmp_path) -> None:
    """41 pictures of random content: two shards, each read back at both flips."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.png" for i in range(41)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (128, 128, 3), dtype=np.uint8)).save(path)
    vae = load_base("tiny", "cpu").vae
    write_latents(vae, paths, 128, tmp_path)
    cache = TrainingCache.load(tmp_path, np.zeros((41, 16, 16), np.uint8), [np.zeros(3, int)] * 41)
    assert [len(shard[0]) for shard in cache.mean] == [32, 9]
    mean, std = cache.posterior([0, 1, 1], [40, 3, 40])
    for i, (flip, row) in enumerate([(0, 40), (1, 3), (1, 40)]):
        picture = np.asarray(Image.open(paths[row]))[None]
        with torch.inference_mode():
            expected = vae.encode(to_vae(picture[:, :, :: -1 if flip else 1].copy())).latent_dist
        torch.testing.assert_close(mean[i], expected.mean[0], atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(std[i], expected.std[0], atol=2e-3, rtol=2e-3)


def test_latents_are_encoded_in_passes_that_memory_holds(tmp_path, caplog) -> None:
    vae, passes, paths = load_base("tiny", "cpu").vae, [], [tmp_path / f"{i}.png" for i in range(5)]
    for path in paths:
        Image.effect_noise((32, 32), 50).convert("RGB").save(path)
    write_latents(vae, paths, 32, tmp_path / "at_once")

    def allocate(_: torch.nn.Module, arguments: tuple) -> None:
        passes.append(len(arguments[0]))
        torch.empty(2**50 if passes[-1] > 2 else 1)

    vae.encoder.register_forward_pre_hook(allocate)
    write_latents(vae, paths, 32, tmp_path / "in_passes")
    assert passes == [4, 2, 2, 1, 2, 2, 1]  # of both flips; the second begins with what fitted
    assert "Memory ran out in encoding pictures: going on with passes of 2 instead of 4 pictures" in caplog.text
    found, expected = (load_file(tmp_path / name / "latents-0000000.safetensors") for name in ("in_passes", "at_once"))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-2)


def test_latents_that_are_no_numbers_are_not_kept(tmp_path) -> None:
    Image.new("RGB", (128, 128)).save(tmp_path / "one.png")
    vae = load_base("tiny", "cpu").vae
    vae.encoder.conv_out.bias.data.fill_(1e6)  # beyond float16
    with pytest.raises(UserError, match=r"VAE of base\.model"):
        write_latents(vae, [tmp_path / "one.png"], 128, tmp_path / "latents")
    assert not (tmp_path / "latents").exists()


@pytest.mark.parametrize("unet", ["frozen", "lora", "key_value", "full"])
def test_an_adapter_round_trip_draws_the_same_picture(cache: TrainingCache, tmp_path, unet: str) -> None:
    of = options(learning_rate=1e-2, unet=unet)
    model = fresh_model(of)
    untrained = weights(model)
    train(model, cache, of, tmp_path, "f")
    assert all((trained != untrained[name]).any() for name, trained in weights(model).items())
    model.save_adapter(tmp_path / "adapter", {"steps": 4})
    loaded = PartCraft.load(tmp_path / "adapter", "cpu", "float32")
    sampling = SamplingOptions(
        steps=2, scheduler="dpm-solver++", guidance_scale=2.0, guidance_rescale=0.0, negative_prompt="", batch_size=2
    )
    prompts, names = ["a photo of a [0,1] [1,2]", "a photo of a [2,0]"], ["one", "two"]
    first = sample_pictures(model, prompts, names, sampling, seed=0)
    second = sample_pictures(loaded, prompts, names, sampling, seed=0)
    assert torch.allclose(first, second, atol=1e-4)
    if unet == "lora":  # a plain diffusers pipeline reads it, with its metadata
        plain = load_base("tiny")
        plain.load_lora_weights(tmp_path / "adapter")
        assert plain.unet.peft_config["default_0"].r == 2


def test_an_adapter_that_is_not_whole_is_refused(tmp_path) -> None:
    with pytest.raises(UserError, match="whole adapter"):
        PartCraft.load(tmp_path, "cpu")
