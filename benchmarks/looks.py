"""How far generated pictures look like real ones, by an eye that took no part in making or judging them.

    python benchmarks/looks.py --eye <folder of a DINOv2> [--data data] [--dataset creatures]

Features are the class token and the mean over patches of the last block, on the 32 principal components of the real
training pictures. Against these are set the reconstructions of a finished run and, as what can be hoped for, the real
test pictures: the Fréchet distance, and the share within the real manifold (third-neighbour radii, Kynkäänniemi et al.
2019, arXiv:1904.06991).
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from tqdm import tqdm
from transformers import AutoModel

from partcraft_kedro.evaluation.distances import frechet_distance
from partcraft_kedro.images.decoding import load_pictures

_COMPONENTS, _NEIGHBOURS, _BATCH, _SIDE = 32, 3, 16, 224
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as DINOv2 was trained


@torch.inference_mode()
def look_at(eye: torch.nn.Module, paths: list[Path]) -> np.ndarray:
    """Class token and mean patch of every picture, (n, 2 × width)."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _STD))
    seen = []
    for start in tqdm(range(0, len(paths), _BATCH), desc="look at pictures", unit="batch"):
        pictures = torch.from_numpy(load_pictures(paths[start : start + _BATCH], _SIDE)).permute(0, 3, 1, 2) / 255
        states = eye((pictures - mean) / std).last_hidden_state
        seen.append(torch.cat([states[:, 0], states[:, 1:].mean(1)], 1))
    return torch.cat(seen).numpy()


def share_in_manifold(real: np.ndarray, shown: np.ndarray) -> float:
    """The share of pictures that lie within some real picture's distance to its third neighbour."""
    radii = np.partition(cdist(real, real), _NEIGHBOURS, axis=1)[:, _NEIGHBOURS]
    return float((cdist(real, shown) <= radii[:, None]).any(0).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eye", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--dataset", default="creatures")
    arguments = parser.parse_args()
    records = pd.read_parquet(arguments.data / "02_intermediate" / arguments.dataset / "records.parquet")
    scores = pd.read_parquet(arguments.data / "08_reporting" / arguments.dataset / "scores.parquet")
    eye = AutoModel.from_pretrained(arguments.eye, local_files_only=True).eval()
    groups = {
        "real training pictures": records.loc[records["split"] == "train", "path"],
        "real test pictures": records.loc[records["split"] == "test", "path"],
        "reconstructions": scores.loc[scores["kind"] == "reconstruction", "path"],
        "compositions": scores.loc[(scores["kind"] == "composition") & (scores["source_count"] > 1), "path"],
    }
    seen = {name: look_at(eye, [arguments.data / path for path in paths]) for name, paths in groups.items()}
    components = PCA(_COMPONENTS, random_state=0).fit(seen["real training pictures"])
    real = components.transform(seen.pop("real training pictures"))
    print("| pictures | number | Fréchet distance | share within the real manifold |\n|---|---|---|---|")
    for name, features in seen.items():
        shown = components.transform(features)
        distance, share = frechet_distance(real, shown), share_in_manifold(real, shown)
        print(f"| {name} | {len(shown)} | {distance:.2f} | {share:.3f} |")


if __name__ == "__main__":
    main()
