import numpy as np
import pytest
import torch
from PIL import Image

from partcraft_kedro.features.extractor import FeatureExtractor
from partcraft_kedro.features.shards import FeatureShards, write_shards
from partcraft_kedro.images.records import load_pictures

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
