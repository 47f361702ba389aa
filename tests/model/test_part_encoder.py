import pytest
import torch
from torch import nn

from partcraft_kedro.model.part_encoder import PartEncoder


@pytest.fixture(autouse=True)
def fixed_weights():
    torch.manual_seed(0)


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
@pytest.mark.parametrize("scale", [0.014, 1.0])
def test_embeddings_start_at_the_scale_of_words(layers, scale):
    encoder = PartEncoder(5, 16, [32], layers=layers, scales=[scale])
    [embeddings] = encoder.all_embeddings()
    assert embeddings.shape == (6 * 16, 32)
    assert embeddings.std().item() == pytest.approx(scale, rel=1e-4)


def test_without_layers_a_token_is_its_row_and_its_part_s_vector():
    encoder = PartEncoder(2, 4, [8], layers=0, scales=[1.0])
    expected = encoder.variants.weight[[0, 3, 4, 11]] + encoder.parts.weight[[0, 0, 1, 2]]
    torch.testing.assert_close(encoder(torch.tensor([0, 3, 4, 11]))[0], expected)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_layers_are_linear_with_relu_between(layers):
    encoder = PartEncoder(2, 4, [8], layers=layers, scales=[1.0])
    hidden = encoder.variants.weight[5] + encoder.parts.weight[1]
    linear = [module for module in encoder.bottleneck if isinstance(module, nn.Linear)]
    assert len(linear) == layers
    for i, layer in enumerate(linear):
        hidden = layer.weight @ (hidden.relu() if i else hidden) + layer.bias
    torch.testing.assert_close(encoder(torch.tensor(5))[0], hidden)


def test_any_shape_of_indices_is_taken():
    encoder = PartEncoder(2, 4, [8], layers=2, scales=[1.0])
    indices = torch.tensor([[7, 0, 11], [2, 2, 5]])
    torch.testing.assert_close(encoder(indices)[0], encoder.all_embeddings()[0][indices])


def test_only_the_rows_and_parts_that_were_used_learn():
    encoder = PartEncoder(2, 4, [8], layers=2, scales=[1.0])
    encoder(torch.tensor([1, 6]))[0].square().sum().backward()
    assert encoder.variants.weight.grad.any(-1).nonzero().flatten().tolist() == [1, 6]
    assert encoder.parts.weight.grad.any(-1).nonzero().flatten().tolist() == [0, 1]
