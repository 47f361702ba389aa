"""Discovered parts against keypoints, where no true masks are to be had.

The measures of Choudhury et al. 2021 ("Unsupervised Part Discovery from Contrastive Reconstruction"), as used for
PDiscoNet and PDiscoFormer, and two that ask what codes say about classes.
"""

import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score


def to_square(points: np.ndarray, width: int, height: int) -> np.ndarray:
    """Pixels of a picture → 0..1 of its centre square, (n, 2); outside of it below 0 or above 1."""
    side = min(width, height)
    return (points - np.array([(width - side) / 2, (height - side) / 2])) / side


def labels_at_keypoints(records: pd.DataFrame, label_maps: np.ndarray) -> pd.DataFrame:
    """One row for each visible keypoint inside the centre square: `picture` (row), `name`, `x`, `y` in 0..1, `label`.

    records: with `keypoints`, `width`, `height`; label_maps: (n, grid, grid).
    """
    grid = label_maps.shape[1]
    rows = []
    for i, record in enumerate(records.itertuples()):
        for keypoint in record.keypoints:
            x, y = to_square(np.array([keypoint["x"], keypoint["y"]]), record.width, record.height)
            if 0 <= x < 1 and 0 <= y < 1:
                rows.append((i, keypoint["name"], x, y, int(label_maps[i, int(y * grid), int(x * grid)])))
    return pd.DataFrame(rows, columns=["picture", "name", "x", "y", "label"])


def keypoint_agreement(found: pd.DataFrame) -> dict[str, float]:
    """NMI and ARI between the keypoints' names and the part labels found there, the background being a label too."""
    return {
        "nmi": float(normalized_mutual_info_score(found["name"], found["label"])),
        "ari": float(adjusted_rand_score(found["name"], found["label"])),
    }


def part_centres(label_maps: np.ndarray, count: int) -> np.ndarray:
    """Mean x and y of each foreground label in 0..1, and whether it shows (0 or 1), (n, 3·count).

    A part that does not show is put at the centre of the picture.
    """
    grid = label_maps.shape[1]
    y, x = (np.mgrid[:grid, :grid] + 0.5) / grid
    features = []
    for label in range(1, count + 1):
        mask = label_maps == label
        area = mask.sum((1, 2))
        shown = area > 0
        divisor = np.maximum(area, 1)
        centre_x = np.where(shown, (mask * x).sum((1, 2)) / divisor, 0.5)
        centre_y = np.where(shown, (mask * y).sum((1, 2)) / divisor, 0.5)
        features += [centre_x, centre_y, shown.astype(float)]
    return np.stack(features, 1)


def keypoint_regression_error(records: pd.DataFrame, label_maps: np.ndarray, found: pd.DataFrame, count: int) -> float:
    """How far a linear map from part centres misses the keypoints: mean distance on the test split, in % of the box.

    One linear regression for each keypoint, fitted on the training pictures that show it; each coordinate's error
    is divided by the box's side. NaN if no keypoint shows in both splits.
    """
    centres = part_centres(label_maps, count)
    training = (records["split"] == "train").to_numpy()
    sides = (
        np.array([box[2:] for box in records["box"]])
        / np.minimum(records["width"], records["height"]).to_numpy()[:, None]
    )
    errors = []
    for _, rows in found.groupby("name"):
        pictures, points = rows["picture"].to_numpy(), rows[["x", "y"]].to_numpy()
        fitted, tested = training[pictures], ~training[pictures]
        if fitted.any() and tested.any():
            line = LinearRegression().fit(centres[pictures[fitted]], points[fitted])
            misses = (line.predict(centres[pictures[tested]]) - points[tested]) / sides[pictures[tested]]
            errors.append(np.linalg.norm(misses, axis=1))
    return float(100 * np.concatenate(errors).mean()) if errors else float("nan")


def foreground_iou(records: pd.DataFrame, label_maps: np.ndarray) -> float:
    """Mean intersection over union of each picture's foreground patches with its box, both in the centre square."""
    grid = label_maps.shape[1]
    centres = (np.arange(grid) + 0.5) / grid
    scores = []
    for record, label_map in zip(records.itertuples(), label_maps, strict=True):
        x, y, width, height = record.box
        corners = to_square(np.array([[x, y], [x + width, y + height]]), record.width, record.height)
        inside_x = (centres >= corners[0, 0]) & (centres < corners[1, 0])
        inside_y = (centres >= corners[0, 1]) & (centres < corners[1, 1])
        box, foreground = inside_y[:, None] & inside_x[None, :], label_map > 0
        union = (box | foreground).sum()
        scores.append((box & foreground).sum() / union if union else 0.0)
    return float(np.mean(scores))


def codes_and_classes(codes: np.ndarray, classes: np.ndarray) -> dict[str, float]:
    """What codes tell of classes, the mean over foreground parts.

    code_class_nmi: between a part's code and the class, over the pictures that show it.
    same_class_agreement: how often two pictures of one class share a part's code.
    """
    informations, agreements = [], []
    for part in range(1, codes.shape[1]):
        shown = codes[:, part] >= 0
        if not shown.any():
            continue
        informations.append(normalized_mutual_info_score(classes[shown], codes[shown, part]))
        table = pd.crosstab(classes[shown], codes[shown, part]).to_numpy()
        totals = table.sum(1)
        pairs = (totals * (totals - 1)).sum()
        if pairs:
            agreements.append((table * (table - 1)).sum() / pairs)
    return {
        "code_class_nmi": float(np.mean(informations)) if informations else float("nan"),
        "same_class_agreement": float(np.mean(agreements)) if agreements else float("nan"),
    }


def names_by_keypoints(found: pd.DataFrame, groups: dict[str, str]) -> dict[int, str]:
    """Each discovered part's human name, by the majority of the keypoints on it.

    groups: keypoint name → the name to show, such as `left wing` → `wing`. Every keypoint counts by how rare it is,
    so that a part is named after what is special to it. Parts without keypoints get no name.
    """
    named = found.assign(group=found["name"].map(groups))
    table = pd.crosstab(named["label"], named["group"])
    return {int(label): str(row.idxmax()) for label, row in (table / table.sum()).iterrows() if label > 0}
