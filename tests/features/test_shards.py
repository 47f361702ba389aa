import numpy as np
import pytest
import torch
from PIL import Image

from partcraft_kedro.errors import UserError
from partcraft_kedro.features.extractor import FeatureExtractor
from partcraft_kedro.features.shards import FeatureShards, write_shards
from partcraft_kedro.images.decoding import load_pictures

SIZES = {"batch_size": 2, "shard_size": 3}


@pytest.fixture
def paths(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    for i, picture in enumerate(noise):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    return [tmp_path / f"{i}.png" for i in range(7)]


@pytest.fixture
def extractor(vit_folder):
    return FeatureExtractor(str(vit_folder))


def test_shards_hold_every_picture_in_order(extractor, paths, tmp_path):
    folder = tmp_path / "shards"
    write_shards(extractor, paths, folder, **SIZES)
    shards = list(FeatureShards(folder))
    assert [shard.shape for shard in shards] == [(3, 16, 12), (3, 16, 12), (1, 16, 12)]
    expected = extractor(load_pictures(paths, 32))
    torch.testing.assert_close(torch.cat(shards), expected, atol=1e-2, rtol=1e-2)  # float16
    chosen = np.array([True, False, True, False, False, False, True])
    some = list(FeatureShards(folder, chosen))
    assert [len(shard) for shard in some] == [2, 0, 1]
    assert torch.equal(torch.cat(some), torch.cat(shards)[torch.from_numpy(chosen)])


def test_finished_shards_are_kept_and_missing_ones_made(extractor, paths, tmp_path):
    folder = tmp_path / "shards"
    write_shards(extractor, paths, folder, **SIZES)
    first, second, third = sorted(folder.iterdir())
    contents = [shard.read_bytes() for shard in (first, second, third)]
    second.unlink()
    paths[0].unlink()  # only the first shard needs it
    write_shards(extractor, paths, folder, **SIZES)
    assert [shard.read_bytes() for shard in sorted(folder.iterdir())] == contents


def test_a_picture_lost_on_the_way_is_named_and_what_was_finished_stays(extractor, paths, tmp_path):
    paths[4].unlink()
    with pytest.raises(UserError, match=r"^Picture \S+4\.png is missing"):
        write_shards(extractor, paths, tmp_path / "shards", **SIZES)
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["features-0000000.safetensors"]


@pytest.mark.parametrize("value", [torch.nan, 1e6])
def test_features_that_are_not_finite_are_refused_by_model_and_picture(extractor, paths, tmp_path, value):
    """The fourth picture's, in the second batch; a million is too much for float16."""
    whole = extractor.network.encoder.forward
    seen = []

    def overflowing(*arguments, **options):
        output = whole(*arguments, **options)
        seen.append(len(output.last_hidden_state))
        if len(seen) == 2:
            output.last_hidden_state[1, 3, 5] = value
        return output

    extractor.network.encoder.forward = overflowing
    with pytest.raises(UserError, match=r"features\.model='.*vit' gives features of .*3\.png that are not all finite"):
        write_shards(extractor, paths, tmp_path, **SIZES | {"shard_size": 4})
    assert not list(tmp_path.glob("*.safetensors"))
