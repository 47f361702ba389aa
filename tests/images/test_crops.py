import numpy as np
import pytest

from partcraft_kedro.images.crops import crop_to, crop_within, largest_piece, typical_crop


def mask_of(*patches):
    mask = np.zeros((4, 4), bool)
    for row, column in patches:
        mask[row, column] = True
    return mask


@pytest.mark.parametrize(
    ("mask", "rows", "columns"),
    [
        (mask_of((1, 2)), (0, 6), (2, 8)),  # one patch of 2 pixels, and one around it
        (mask_of((0, 0)), (0, 6), (0, 6)),  # at the edge: moved inside
        (mask_of((1, 1), (2, 2)), (0, 8), (0, 8)),
        (mask_of((0, 0), (3, 3)), (0, 8), (0, 8)),  # larger than the picture: all of it
    ],
)
def test_crops_are_squares_around_the_part(mask, rows, columns):
    picture = np.arange(8 * 8 * 3).reshape(8, 8, 3)
    assert np.array_equal(crop_to(picture, mask), picture[slice(*rows), slice(*columns)])


def test_a_stray_patch_does_not_stretch_the_crop():
    picture, mask = np.arange(16 * 16 * 3).reshape(16, 16, 3), np.zeros((16, 16), bool)
    mask[2:4, 2:4] = True
    alone = crop_to(picture, mask)
    mask[0, 14] = True
    assert np.array_equal(crop_to(picture, largest_piece(mask)), alone)
    assert np.array_equal(typical_crop(picture, mask, 3), alone)


def test_a_crop_is_around_its_part_whatever_the_grid():
    """37 patches on 256 pixels: the last one's middle is pixel 252.5."""
    picture = np.arange(256 * 256 * 3).reshape(256, 256, 3)
    mask = np.zeros((37, 37), bool)
    mask[36, 18] = True
    assert np.array_equal(crop_to(picture, mask), picture[235:256, 117:138])


def test_a_background_is_shown_by_its_largest_square():
    picture, mask = np.arange(16 * 16 * 3).reshape(16, 16, 3), np.ones((8, 8), bool)
    mask[:, 4] = mask[5] = False  # what is left: 5×4 and smaller
    assert np.array_equal(crop_within(picture, mask), picture[0:6, 0:6])  # an odd square around a patch
    assert np.array_equal(typical_crop(picture, mask, 0), picture[0:6, 0:6])


def test_pieces_may_touch_at_corners():
    mask = mask_of((0, 0), (1, 1), (3, 3))
    assert np.array_equal(largest_piece(mask), mask_of((0, 0), (1, 1)))
