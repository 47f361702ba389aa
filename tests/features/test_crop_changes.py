import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import map_coordinates

from partcraft_kedro.errors import UserError
from partcraft_kedro.features import extractor as extractor_module
from partcraft_kedro.features.crops import crop_changes, random_box, read_changes, write_changes
from partcraft_kedro.features.extractor import FeatureExtractor
from partcraft_kedro.randomness import numpy_generator


@pytest.fixture
def extractor(vit_folder, monkeypatch):
    """4×4 patches of 32 pixels; in float32, whatever the processor."""
    monkeypatch.setattr(extractor_module, "half_precision", lambda device: None)
    return FeatureExtractor(str(vit_folder))


@pytest.fixture
def paths(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), dtype=np.uint8)
    for i, picture in enumerate(noise):
        Image.fromarray(picture).resize((64, 64)).save(tmp_path / f"{i}.png")
    return [tmp_path / f"{i}.png" for i in range(7)]


def unit(features):
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


def test_changes_are_a_crop_s_features_less_the_whole_s_at_the_same_places(extractor):
    """Interpolated by scipy: patches of the whole have their middles at 8, 24, 40 and 56 of 64 pixels."""
    pictures = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    boxes = [(0, 24, 40), (16, 8, 32)]
    whole = unit(extractor(pictures).numpy())
    for picture, features, (left, top, side), found in zip(
        pictures, whole, boxes, crop_changes(extractor, pictures, boxes), strict=True
    ):
        cropped = unit(extractor(picture[None, top : top + side, left : left + side]).numpy()[0])
        middles = side * (np.arange(4) + 0.5) / 4
        rows, columns = np.meshgrid((top + middles) / 16 - 0.5, (left + middles) / 16 - 0.5, indexing="ij")
        there = [
            map_coordinates(plane, (rows, columns), order=1, mode="nearest") for plane in features.T.reshape(-1, 4, 4)
        ]
        expected = cropped - np.stack(there, -1).reshape(16, -1)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    whole_again = crop_changes(extractor, pictures, [(0, 0, 64)] * 2)
    torch.testing.assert_close(whole_again, torch.zeros_like(whole_again), atol=1e-5, rtol=0)


def test_boxes_lie_within_the_picture_and_are_no_two_alike():
    rng = np.random.default_rng(0)
    boxes = [random_box(64, rng) for _ in range(200)]
    for left, top, side in boxes:
        assert 32 <= side <= 58  # .5 and .9 of 64
        assert 0 <= min(left, top) <= max(left, top) <= 64 - side
    assert len(set(boxes)) > 150


def test_the_second_moment_is_that_of_all_pictures_however_they_are_shared_out(extractor, paths, tmp_path):
    write_changes(extractor, paths, tmp_path / "whole", shard_size=3, seed=2)
    write_changes(extractor, paths[3:], tmp_path / "pieces", shard_size=3, seed=2, first=3)
    write_changes(extractor, paths[:3], tmp_path / "pieces", shard_size=3, seed=2)
    whole, pieces = ({path.name: path.read_bytes() for path in (tmp_path / n).iterdir()} for n in ("whole", "pieces"))
    assert whole == pieces
    assert len(whole) == 3
    found = read_changes(tmp_path / "whole")
    write_changes(extractor, paths, tmp_path / "other", shard_size=3, seed=3)
    assert not torch.allclose(read_changes(tmp_path / "other"), found, rtol=1e-3)

    of_all = []
    for i, path in enumerate(paths):
        box = random_box(64, numpy_generator(2, "crop", i))
        of_all.append(crop_changes(extractor, np.asarray(Image.open(path))[None], [box])[0])
    changes = torch.cat(of_all).numpy()
    np.testing.assert_allclose(found, changes.T @ changes / (7 * 16), rtol=1e-4, atol=1e-6)


def test_finished_files_are_kept_and_a_missing_one_is_made(extractor, paths, tmp_path):
    folder = tmp_path / "changes"
    write_changes(extractor, paths, folder, shard_size=3, seed=0)
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "changes-0000003.safetensors").unlink()
    paths[0].unlink()  # only the first file needs it
    write_changes(extractor, paths, folder, shard_size=3, seed=0)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == contents
    (folder / "changes-0000000.safetensors").unlink()
    with pytest.raises(UserError, match=r"^Picture \S+0\.png is missing"):
        write_changes(extractor, paths, folder, shard_size=3, seed=0)
