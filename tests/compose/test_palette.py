"""Palettes against the table that they are made of."""

import numpy as np
import pytest
from PIL import Image

from partcraft_kedro.compose.palette import AdapterPalette, DatasetPalette
from partcraft_kedro.errors import UserError
from partcraft_kedro.images.crops import typical_crop
from partcraft_kedro.parts.sheet import read_sheet


def test_variants_are_those_that_pictures_have_the_commonest_first(palette: DatasetPalette) -> None:
    for part, variants in enumerate(palette.variants):
        code = palette.codes[:, part]
        assert {variant.number for variant in variants} == set(code[code >= 0].tolist())
        counts = [len(variant.rows) for variant in variants]
        assert counts == sorted(counts, reverse=True)
        for variant in variants:
            assert set(variant.rows) == set(np.flatnonzero(code == variant.number))
            assert variant.typical == palette.records["id"][variant.rows[0]]
            assert variant.classes[0] == palette.records["class_name"][variant.rows].mode()[0] or len(variant.rows) < 4


def test_the_first_picture_of_a_variant_is_the_nearest_to_its_centroid(palette: DatasetPalette) -> None:
    for variant in palette.variants[1]:
        cosine = palette._cosines[variant.rows, 1]
        assert (np.diff(cosine) <= 0).all()


def test_a_crop_is_cut_from_the_typical_picture(palette: DatasetPalette) -> None:
    variant = palette.variants[1][0]
    row = palette._rows[variant.typical]
    assert row == np.argmax(np.where(palette.codes[:, 1] == variant.number, palette._cosines[:, 1], -1))
    whole = np.asarray(palette.picture(variant.typical, 320))
    crop = Image.fromarray(typical_crop(whole, palette._label_maps[row] == 1, 1))
    expected = crop.resize((64, 64), Image.Resampling.BICUBIC)
    assert (np.asarray(palette.crop(1, variant.number, 64)) == np.asarray(expected)).all()


def test_like_orders_by_the_cosine_of_centroids(palette: DatasetPalette) -> None:
    number = palette.variants[2][0].number
    order = palette.like(2, number)
    centroids = palette._predictor.variants[2].numpy()
    cosines = centroids[order] @ centroids[number]
    assert number not in order
    assert (np.diff(cosines) <= 0).all()
    assert set(order) == {variant.number for variant in palette.variants[2]} - {number}


def test_shuffle_leaves_what_is_locked_and_changes_all_else(palette: DatasetPalette) -> None:
    code = [variants[0].number for variants in palette.variants]
    several = {part for part, variants in enumerate(palette.variants) if len(variants) > 1}
    assert len(several) > 1
    for seed in range(20):
        shuffled = palette.shuffle(code, {0}, np.random.default_rng(seed))
        assert shuffled[0] == code[0]
        assert all(shuffled[part] != code[part] for part in several - {0})
        assert all(palette.variant(part, variant) for part, variant in enumerate(shuffled))


def test_shuffle_draws_common_variants_more_often(palette: DatasetPalette) -> None:
    part = max(range(3), key=lambda part: len(palette.variants[part]))
    rng = np.random.default_rng(0)
    drawn = np.array([palette.shuffle([None] * 3, set(), rng)[part] for _ in range(400)])
    for variant in palette.variants[part]:
        assert np.mean(drawn == variant.number) == pytest.approx(
            len(variant.rows) / sum(len(other.rows) for other in palette.variants[part]), abs=0.1
        )


def test_a_part_that_does_not_show_is_none(palette: DatasetPalette) -> None:
    for row, id in enumerate(palette.records["id"]):
        expected = [None if variant < 0 else variant for variant in palette.codes[row]]
        assert palette.code_of(id) == expected


@pytest.mark.parametrize("ask", [lambda p: p.crop(1, 99, 8), lambda p: p.crop(9, 0, 8), lambda p: p.like(-1, 0)])
def test_a_variant_that_there_is_not_is_told(palette: DatasetPalette, ask) -> None:
    with pytest.raises(UserError, match="There is no variant"):
        ask(palette)


@pytest.mark.parametrize("id", ["../../etc/passwd", "", "999"])
def test_a_picture_that_there_is_not_is_told(palette: DatasetPalette, id: str) -> None:
    with pytest.raises(UserError, match="no such picture"):
        palette.picture(id, 8)
    with pytest.raises(UserError, match="no such picture"):
        palette.code_of(id)


def test_a_picture_is_shown_whole(palette: DatasetPalette) -> None:
    shown = palette.picture("003", 128)
    assert (np.asarray(shown) == np.asarray(Image.open(palette._root / "003.png"))).all()


def test_an_adapter_alone_has_crops_of_what_its_pictures_showed(palette: DatasetPalette, carry_parts, tmp_path) -> None:
    """The last variant of the last part shows in no picture, and pictures to show there are none."""
    carry_parts(tmp_path, ["background", "head", "wing"])
    carried = AdapterPalette(read_sheet(tmp_path / "parts"), palette._predictor)
    assert carried.names == ["background", "head", "wing"]
    numbers = [[(variant.number, variant.count) for variant in variants] for variants in carried.variants]
    assert numbers == [[(0, 2), (1, 1), (2, 1)], [(0, 1), (1, 1), (2, 1), (3, 1)], [(0, 1), (1, 1), (2, 1)]]
    assert np.abs(np.asarray(carried.crop(1, 3, 32)).mean((0, 1)) - [180, 90, 20]).max() < 4
    assert carried.crop(1, 3, 32).size == (32, 32)
    assert set(carried.like(2, 0)) == {1, 2}
    assert carried.shuffle([0, 1, 2], {0, 1}, np.random.default_rng(0))[:2] == [0, 1]
    for ask in (lambda: carried.crop(2, 3, 32), lambda: carried.picture("000", 32), lambda: carried.code_of("000")):
        with pytest.raises(UserError, match="There is no"):
            ask()
