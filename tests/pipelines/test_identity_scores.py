"""Part identity on a finished run's pictures."""

import numpy as np
import pandas as pd

from partcraft_kedro.evaluation import part_identity
from partcraft_kedro.evaluation.metrics import mean_of_known
from partcraft_kedro.evaluation.part_identity import PartIdentity, score_identity
from partcraft_kedro.model.base import load_base
from partcraft_kedro.parts.predictor import PartPredictor


def test_parts_are_compared_with_those_of_their_own_sources(finished, vit_folder, monkeypatch) -> None:
    """Where each picture is its base itself, parts from the base are identical and swapped ones are not; whatever the
    batches, among them some without a reconstruction. Then every part that stays is most like its own, every swapped
    one like the base's, and nothing leaks."""
    data = finished.data
    table = pd.read_parquet(data / "08_reporting/test/scores.parquet")
    records = pd.read_parquet(data / "02_intermediate/test/records.parquet").set_index("id")
    predictor = PartPredictor.load(next(data.glob("05_model_input/test/part_predictor/*/part_predictor")))
    identity = PartIdentity(
        str(vit_folder), clustered="tiny", part_count=predictor.part_count, min_patches=2, device="cpu"
    )
    table["path"] = [records.loc[sources[0], "path"] for sources in table["sources"]]
    vae = load_base("tiny", "cpu").vae

    def score() -> dict[str, np.ndarray]:
        known = {"predictor": predictor, "vae": vae, "size": 128, "seed": 0}
        return score_identity(identity, table, records, data, **known)

    of_parts = score()
    monkeypatch.setattr(part_identity, "BATCH", 3)
    for name, values in score().items():
        if not name.startswith(("identity_transfer", "identity_preservation")):  # rounding may turn a comparison
            np.testing.assert_allclose(of_parts[name], values, atol=0.02, err_msg=name)
    found = pd.DataFrame({name: mean_of_known(values, axis=1) for name, values in of_parts.items()})
    rebuilt = table["kind"] == "reconstruction"
    alone = table["source_count"] == 1
    np.testing.assert_allclose(found.loc[alone, "part_identity"], 1, atol=1e-3)
    swapped = table["swapped"].map(lambda parts: any(part > 0 for part in parts))
    assert (found.loc[swapped, "part_identity"] < 1 - 1e-3).any()
    assert found["part_identity_ceiling"].notna().equals(rebuilt)
    assert found["part_identity_floor"].mean() < found["part_identity"].mean()
    assert found["identity_preservation"].min() > 0.99 and found["identity_transfer"].mean() < 0.01
    # Every picture is its base here, so that of a chain all are the same.
    np.testing.assert_allclose(found["identity_leakage"].dropna(), 0, atol=0.02)
    assert found["identity_leakage"].notna().sum() > 3 and found["identity_leakage_floor"].min() > 0.01
