"""Part identity on a finished run's pictures."""

import numpy as np
import pandas as pd

from partcraft_kedro.evaluation import part_identity
from partcraft_kedro.evaluation.part_identity import PartIdentity, score_identity
from partcraft_kedro.model.base import load_base
from partcraft_kedro.parts.predictor import PartPredictor


def test_parts_are_compared_with_those_of_their_own_sources(finished, vit_folder, monkeypatch) -> None:
    """Where each picture is its base itself, parts from the base are identical and swapped ones are not; whatever the
    batches, among them some without a reconstruction."""
    data = finished.data
    table = pd.read_parquet(data / "08_reporting/test/scores.parquet")
    records = pd.read_parquet(data / "02_intermediate/test/records.parquet").set_index("id")
    predictor = PartPredictor.load(next(data.glob("05_model_input/test/part_predictor/*/part_predictor")))
    identity = PartIdentity(
        str(vit_folder), clustered="tiny", part_count=predictor.part_count, min_patches=2, device="cpu"
    )
    table["path"] = [records.loc[sources[0], "path"] for sources in table["sources"]]
    vae = load_base("tiny", "cpu").vae

    def score() -> pd.DataFrame:
        known = {"predictor": predictor, "vae": vae, "size": 128, "seed": 0}
        return score_identity(identity, table, records, data, **known)

    found = score()
    monkeypatch.setattr(part_identity, "BATCH", 3)
    pd.testing.assert_frame_equal(found, score(), atol=0.02)
    rebuilt = table["kind"] == "reconstruction"
    alone = table["source_count"] == 1
    np.testing.assert_allclose(found.loc[alone, "part_identity"], 1, atol=1e-3)
    swapped = table["swapped"].map(lambda parts: any(part > 0 for part in parts))
    assert (found.loc[swapped, "part_identity"] < 1 - 1e-3).any()
    assert found["part_identity_ceiling"].notna().equals(rebuilt)
    assert found["part_identity_floor"].mean() < found["part_identity"].mean()
