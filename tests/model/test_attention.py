import copy
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from partcraft_kedro.model import attention
from partcraft_kedro.model.attention import AttentionCapture, attend_in_float32, attention_layers

CONFIGS = Path(__file__).parents[3] / "shared/configs"
COLUMNS = torch.tensor([[1, 4, -1], [6, -1, 2]])


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(2, 4, 16, 16, generator=generator),
        torch.tensor([3, 800]),
        3 * torch.randn(2, 7, 12, generator=generator),
    )


def explicit_probabilities(layer, hidden, text):
    """softmax(QKᵀ/√d) of one layer, head by head, (batch, location, token), the mean over heads."""
    query, key = hidden @ layer.to_q.weight.T, text @ layer.to_k.weight.T
    pairs = zip(query.chunk(layer.heads, -1), key.chunk(layer.heads, -1), strict=True)
    return torch.stack([(q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) for q, k in pairs]).mean(0)


def test_the_output_is_that_of_the_default_processors(unet, inputs):
    expected = unet(*inputs).sample
    with AttentionCapture(unet) as capture:
        capture.watch(COLUMNS)
        torch.testing.assert_close(unet(*inputs).sample, expected, atol=1e-5, rtol=0)
        capture.watch(None)
        torch.testing.assert_close(unet(*inputs).sample, expected, atol=1e-5, rtol=0)


PAPER = {
    "down_blocks.2.attentions.0.transformer_blocks.0.attn2",
    "down_blocks.2.attentions.1.transformer_blocks.0.attn2",
    "up_blocks.1.attentions.0.transformer_blocks.0.attn2",
    "up_blocks.1.attentions.1.transformer_blocks.0.attn2",
    "up_blocks.1.attentions.2.transformer_blocks.0.attn2",
}


@pytest.mark.parametrize(("base", "count", "side"), [("sd15", 5, 16), ("sd21", 5, 24), ("sdxl", 60, 32)])
def test_the_layers_of_published_models(base: str, count: int, side: int) -> None:
    """By what each layer is given, on tensors without content."""
    if not (config := CONFIGS / base / "unet/config.json").exists():
        pytest.skip("no configurations of published models here")
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(json.loads(config.read_text()))
        latents = torch.empty(1, 4, unet.config.sample_size, unet.config.sample_size)
        words = torch.empty(1, 77, unet.config.cross_attention_dim)
        further = {"text_embeds": torch.empty(1, 1280), "time_ids": torch.empty(1, 6)}
        locations = {}
        for name, layer in unet.named_modules():
            if name.endswith("attn2"):
                layer.register_forward_pre_hook(
                    lambda _, given, name=name: locations.__setitem__(name, given[0].shape[1])
                )
        unet(latents, torch.tensor(1.0), words, added_cond_kwargs=further if base == "sdxl" else None)
    layers = attention_layers(unet)
    assert len(layers) == count
    assert set(layers) == {name for name, of_layer in locations.items() if of_layer == side**2}
    assert (set(layers) == PAPER) == (base != "sdxl")


def test_the_map_is_the_softmax_computed_from_the_layers_inputs(unet, inputs):
    expected = []

    def keep(layer, arguments, named):
        expected.append(explicit_probabilities(layer, arguments[0], named["encoder_hidden_states"]))

    hooks = [
        unet.get_submodule(name).register_forward_pre_hook(keep, with_kwargs=True) for name in attention_layers(unet)
    ]
    with AttentionCapture(unet) as capture:
        capture.watch(COLUMNS)
        unet(*inputs)
        maps = capture.maps()
    for hook in hooks:
        hook.remove()
    over_layers = torch.stack(expected).mean(0)
    assert len(expected) == 5
    assert maps.shape == (2, 3, 4, 4)
    for picture, columns in enumerate(COLUMNS.tolist()):
        for part, column in enumerate(columns):
            wanted = over_layers[picture, :, column] if column >= 0 else torch.zeros(16)
            torch.testing.assert_close(maps[picture, part].flatten(), wanted, atol=1e-6, rtol=0)


def test_gradients_flow_from_the_maps_to_the_text(unet, inputs):
    noisy, timesteps, text = inputs
    text.requires_grad_()
    with AttentionCapture(unet) as capture:
        capture.watch(COLUMNS)
        unet(noisy, timesteps, text)
        capture.maps()[..., 0, 0].sum().backward()
    assert text.grad.isfinite().all()
    assert (text.grad != 0).any()


def test_leaving_restores_the_processors_even_after_an_error(unet):
    before = unet.attn_processors
    with pytest.raises(RuntimeError), AttentionCapture(unet):
        assert unet.attn_processors != before
        raise RuntimeError
    assert unet.attn_processors == before


def test_only_the_five_layers_are_touched(unet):
    before = unet.attn_processors
    with AttentionCapture(unet):
        changed = {name for name, processor in unet.attn_processors.items() if processor is not before[name]}
    assert changed == {f"{layer}.processor" for layer in attention_layers(unet)}


def test_nothing_is_kept_when_nothing_is_watched(unet, inputs):
    with AttentionCapture(unet) as capture:
        unet(*inputs)
        capture.watch(None)
        unet(*inputs)
        with pytest.raises(RuntimeError, match="watched"):
            capture.maps()


def test_half_precision_keeps_its_maps_in_float32(unet, inputs):
    half = copy.deepcopy(unet).bfloat16()
    noisy, timesteps, text = inputs
    with AttentionCapture(half) as capture:
        capture.watch(COLUMNS)
        assert half(noisy.bfloat16(), timesteps, text.bfloat16()).sample.dtype == torch.bfloat16
        assert capture.maps().dtype == torch.float32


def test_attention_in_float32_is_attention(unet, inputs):
    """In float32 nothing changes, the text's causal mask included."""
    unet = copy.deepcopy(unet)
    config = CLIPTextConfig(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2)
    text_encoder, ids = CLIPTextModel(config).eval(), torch.arange(14).view(2, 7)
    expected, of_text = unet(*inputs).sample, text_encoder(ids).last_hidden_state
    attend_in_float32(unet, text_encoder)
    torch.testing.assert_close(unet(*inputs).sample, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(text_encoder(ids).last_hidden_state, of_text, atol=1e-5, rtol=0)
    with AttentionCapture(unet):
        torch.testing.assert_close(unet(*inputs).sample, expected, atol=1e-5, rtol=0)


def test_attention_written_out_rounds_no_score():
    generator = torch.Generator().manual_seed(0)
    query, key, value = (4 * torch.randn(2, 2, 64, 8, generator=generator).bfloat16() for _ in range(3))
    exact = F.scaled_dot_product_attention(query.double(), key.double(), value.double())
    with torch.autocast("cpu", torch.bfloat16):
        found = attention._attention(query, key, value, scale=8**-0.5)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), exact, rtol=2**-7, atol=0.05)


def test_self_attention_projects_in_one_product_where_all_is_frozen(unet, inputs):
    """The weights keep their names, and lie in memory once."""
    unet = copy.deepcopy(unet)
    unet.down_blocks[2].attentions[0].transformer_blocks[0].attn1.to_k.weight.requires_grad_()
    plain, names = copy.deepcopy(unet), list(unet.state_dict())
    attention.attend_fused(unet)
    assert list(unet.state_dict()) == names
    layers = [layer for name, layer in unet.named_modules() if name.endswith(".attn1")]
    joint = [layer for layer in layers if hasattr(layer, "to_qkv")]
    assert len(joint) == len(layers) - 1 > 0
    for layer in joint:
        apart = torch.cat([projection.weight for projection in (layer.to_q, layer.to_k, layer.to_v)])
        torch.testing.assert_close(layer.to_qkv, apart, rtol=0, atol=0)
        assert layer.to_v.weight.untyped_storage().data_ptr() == layer.to_qkv.untyped_storage().data_ptr()
    assert not any(hasattr(layer, "to_qkv") for name, layer in unet.named_modules() if name.endswith(".attn2"))
    torch.testing.assert_close(unet(*inputs).sample, plain(*inputs).sample, rtol=0, atol=1e-5)
