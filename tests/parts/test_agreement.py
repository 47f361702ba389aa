import numpy as np
import pytest

from partcraft_kedro.parts.agreement import discovery_scores, match_labels, overlap, patch_labels

# Two true labels over three discovered ones, on 2×2 patches of 2×2 pixels.
TRUE_MASK = np.repeat(np.repeat(np.array([[[0, 0], [1, 1]]], np.uint8), 2, 1), 2, 2)
DISCOVERED = np.array([[[2, 2], [0, 1]]], np.uint8)


def scores_of(discovered, masks, discovered_count, true_count):
    true = patch_labels(masks, discovered.shape[1])
    return discovery_scores(overlap(discovered, true, discovered_count, true_count), discovered, masks)


def test_a_patch_has_its_commonest_label():
    mask = np.zeros((1, 4, 4), np.uint8)
    mask[0, :2, :2] = [[1, 1], [1, 0]]
    mask[0, :2, 2:] = [[2, 0], [3, 2]]
    mask[0, 2:, :2] = [[0, 3], [0, 0]]
    mask[0, 2:, 2:] = 3
    assert patch_labels(mask, 2).tolist() == [[[1, 2], [0, 3]]]
    assert patch_labels(mask, 4).tolist() == mask.tolist()


def test_patches_need_not_divide_the_picture():
    """Two patches on five pixels: the middle of the third one lies in the second."""
    mask = np.array([[[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 0, 2, 2], [2, 2, 2, 2, 2], [2, 2, 2, 2, 2]]], np.uint8)
    assert patch_labels(mask, 2).tolist() == [[[1, 0], [2, 2]]]
    found = np.array([[[1, 0], [2, 2]]], np.uint8)
    assert scores_of(found, mask, 3, 3)["nmi"] == pytest.approx(1)


def test_overlap_by_hand():
    discovered, true = np.array([[0, 0, 0, 1, 1, 2]]), np.array([[0, 0, 1, 1, 1, 0]])
    expected = [[2 / 4, 1 / 5], [0, 2 / 3], [1 / 3, 0], [0, 0]]
    assert overlap(discovered, true, 4, 2).tolist() == pytest.approx(np.array(expected))


def test_labels_are_matched_for_the_largest_total_not_greedily():
    assert match_labels(np.array([[0.5, 0.45], [0.4, 0.0]])) == {0: 1, 1: 0}
    assert match_labels(np.array([[0.1, 0.2], [0.9, 0.8], [0.3, 0.7]])) == {1: 0, 2: 1}
    assert match_labels(np.array([[0.1, 0.2, 0.3]])) == {0: 2}


def test_scores_by_hand():
    """NMI: ln 2 shared, entropies ln 2 and 1.5 ln 2, so 1/1.25. ARI: (1 - 1/3)/(3/2 - 1/3)."""
    scores = scores_of(DISCOVERED, TRUE_MASK, 3, 2)
    assert scores["iou_of_labels"] == pytest.approx([1, 1 / 2])
    assert scores["iou"] == pytest.approx(3 / 4)
    assert scores["ari"] == pytest.approx(4 / 7)
    assert scores["nmi"] == pytest.approx(0.8)
    assert scores["nmi_pixels"] == pytest.approx(0.8)


def test_names_do_not_matter():
    true = np.random.default_rng(0).integers(0, 4, (3, 4, 4)).astype(np.uint8)
    masks = np.kron(true, np.ones((1, 8, 8), np.uint8))
    scores = scores_of(np.array([2, 0, 3, 1], np.uint8)[true], masks, 4, 4)
    assert [scores[name] for name in ("nmi", "ari", "iou", "nmi_pixels")] == pytest.approx([1] * 4)
    assert scores["iou_of_labels"] == pytest.approx([1] * 4)


def test_a_true_label_that_was_not_found_counts_as_zero():
    scores = scores_of(np.zeros((1, 2, 2), np.uint8), TRUE_MASK, 1, 2)
    assert sorted(scores["iou_of_labels"]) == pytest.approx([0, 1 / 2])
    assert scores["iou"] == pytest.approx(1 / 4)
    assert scores["nmi"] == pytest.approx(0)


def test_pixels_are_compared_at_the_masks_own_resolution():
    """One pixel of four differs from its patch: the patches agree, the pixels do not."""
    mask = TRUE_MASK.copy()
    mask[0, 0, 0] = 1
    scores = scores_of(patch_labels(TRUE_MASK, 2), mask, 2, 2)
    assert scores["nmi"] == pytest.approx(1)
    # 7, 8 and 1 of 16 pixels are (0, 0), (1, 1) and (0, 1).
    joint, discovered, true = ([7 / 16, 8 / 16, 1 / 16], [1 / 2, 1 / 2], [7 / 16, 9 / 16])
    h_joint, h_discovered, h_true = (-sum(p * np.log(p) for p in shares) for shares in (joint, discovered, true))
    expected = (h_discovered + h_true - h_joint) / ((h_discovered + h_true) / 2)
    assert scores["nmi_pixels"] == pytest.approx(expected)
