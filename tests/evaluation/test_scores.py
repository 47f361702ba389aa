import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from partcraft_kedro.evaluation.measures import nest
from partcraft_kedro.evaluation.scores import Scored, random_others, score_plan, summarise, through_vae
from partcraft_kedro.generation.plan import looked_path, make_plan
from partcraft_kedro.model.base import load_base
from partcraft_kedro.parts.predictor import PartPredictor
from partcraft_kedro.randomness import numpy_generator


def test_the_floor_is_drawn_from_all_pictures_but_the_sources():
    """As by writing the candidates out and choosing among them, whatever the sources' places and order."""
    records = pd.DataFrame({"path": range(6)}, index=list("abcdef"))
    sources = [["a"], ["f"], ["c", "a"], ["e", "f"], ["d", "c", "b"], ["a", "b", "c", "d", "e"], ["b", "b"]] * 20
    plan = pd.DataFrame({"id": [f"picture {i}" for i in range(len(sources))], "sources": sources})
    expected = [
        numpy_generator(3, "floor", row.id).choice([name for name in records.index if name not in row.sources])
        for row in plan.itertuples()
    ]
    assert random_others(plan, records, seed=3) == expected
    assert set(expected) == set("abcdef")


def test_tasks_are_summed_up_apart():
    """Each number of sources, and each set of transferred parts; what was not measured is left out."""
    rows = [
        ("reconstruction", 1, "", 0.5, 1.0, np.nan),
        ("reconstruction", 1, "", 0.7, 1.0, np.nan),
        ("composition", 1, "", 0.1, 0.9, np.nan),
        ("composition", 2, "", 0.2, 0.8, 0.5),
        ("transfer", 2, "tail", 0.3, 0.7, 0.25),
        ("transfer", 2, "head", 0.4, 0.6, 0.75),
        ("transfer", 3, "tail and head", 0.6, 0.6, 0.5),
    ]
    scores = pd.DataFrame(rows, columns=["kind", "source_count", "transferred", "emr", "emr_ceiling", "transfer"])
    scores = scores.assign(cosim=0.5, cosim_ceiling=np.nan, shape=0.5, shape_ceiling=0.8, shape_floor=0.8)
    scores = scores.assign(**{f"{name}_floor": 0.0 for name in ("emr", "cosim", "transfer")}, transfer_ceiling=1.0)
    tree = nest(summarise(scores, resamples=50, seed=0))
    assert tree["reconstruction"]["emr"]["value"] == pytest.approx(0.6)
    assert tree["reconstruction"].keys() == {"emr", "cosim", "shape"}
    assert {count: of["emr"]["value"] for count, of in tree["composition"].items()} == {"1": 0.1, "2": 0.2}
    assert list(tree["transfer"]) == ["tail", "head", "tail and head"]  # in the order of the plan
    assert {parts: of["transfer"]["value"] for parts, of in tree["transfer"].items()} == {
        "tail": 0.25,
        "head": 0.75,
        "tail and head": 0.5,
    }
    head = tree["transfer"]["head"]
    assert (head["emr"]["ceiling"], head["emr"]["floor"], head["emr"]["n"]) == (0.6, 0.0, 1)
    assert head["cosim"]["ceiling"] is None
    assert (head["shape"]["ceiling"], head["shape"]["floor"]) == (0.8, None)  # any real picture has a good shape


def test_pieces_of_a_plan_of_photographs_make_the_table_of_all(tmp_path):
    """Also where one has no reconstruction, and so no ceiling."""
    ids = list("abcd")
    records = pd.DataFrame({"path": [f"{name}.png" for name in ids]}, index=ids)
    rng = np.random.default_rng(0)
    codes, label_maps = rng.integers(0, 3, (4, 3)), rng.integers(0, 3, (4, 16, 16), np.uint8)
    counts = {"reconstructions": 1, "compositions": 1, "max_sources": 2, "transfers": 0, "transferred": {}}
    plan = make_plan(ids, codes, **counts, seed=0)
    for path in [tmp_path / f"{name}.png" for name in (*ids, *plan["id"])]:
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(path)
        looked_path(path).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 3, (8, 8), np.uint8)).save(looked_path(path))
    centroids = F.normalize(torch.from_numpy(rng.standard_normal((10, 96))).float(), dim=-1)  # of tiny's features
    predictor = PartPredictor(
        *centroids[:4].split(2),
        list(centroids[1:].split(3)),
        discovery="plain",
        features={"model": "tiny"},
        min_patches=1,
    )
    known = {"predictor": predictor, "vae": load_base("tiny", "cpu").vae, "size": 32, "seed": 0}

    def tables(*pieces: pd.DataFrame) -> list[pd.DataFrame]:
        return [score_plan(piece, records, label_maps, tmp_path, tmp_path, **known).as_table(piece) for piece in pieces]

    whole, of_pieces = (Scored.of_tables(plan, tables(*pieces)) for pieces in ([plan], [plan[:1], plan[1:]]))
    pd.testing.assert_frame_equal(of_pieces.table, whole.table, rtol=1e-4)
    assert of_pieces.of_parts.keys() == whole.of_parts.keys()
    for name, values in whole.of_parts.items():
        np.testing.assert_allclose(of_pieces.of_parts[name], values, err_msg=name)
    shown = np.isfinite(whole.of_parts["iou_found_mask_ceiling"]).any(1)
    assert shown.tolist() == [True, False, False]


def test_ceilings_are_made_in_passes_that_memory_holds(caplog):
    vae, passes = load_base("tiny", "cpu").vae, []
    pictures = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    expected = through_vae(vae, pictures)

    def allocate(_, arguments):
        passes.append(len(arguments[0]))
        torch.empty(2**50 if passes[-1] > 1 else 1)

    vae.decoder.register_forward_pre_hook(allocate)
    found = through_vae(vae, pictures)
    assert passes == [3, 1, 1, 1]
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert "Memory ran out in encoding and decoding pictures" in caplog.text
