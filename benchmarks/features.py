"""Feature extraction beside a plain transformers loop over the same pictures.

    python benchmarks/features.py FOLDER_OF_PICTURES --model DINOV2 --pictures 96

The plain loop is what a tutorial would write: PIL, AutoImageProcessor, Dinov2Model, batches of the same size, one
after the other. Both run alternately, each over all pictures; printed are the medians and their ratio.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path


def plain(paths: list[Path], model: str, batch_size: int, layer: int | None) -> None:
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModel

    processor, network = AutoImageProcessor.from_pretrained(model), AutoModel.from_pretrained(model, dtype="float32")
    network.eval()
    with torch.inference_mode():
        for start in range(0, len(paths), batch_size):
            pictures = [Image.open(path).convert("RGB") for path in paths[start : start + batch_size]]
            hidden = network(**processor(pictures, return_tensors="pt"), output_hidden_states=True).hidden_states
            hidden[layer or -1][:, 1:].half()


def ours(paths: list[Path], model: str, batch_size: int, layer: int | None) -> None:
    from partcraft_kedro.features.extractor import FeatureExtractor
    from partcraft_kedro.features.shards import write_shards

    with tempfile.TemporaryDirectory() as folder:
        extractor = FeatureExtractor(model, layer=layer)
        write_shards(extractor, paths, Path(folder), batch_size=batch_size, shard_size=128)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", required=True, help="a folder or hub id of DINOv2's architecture")
    parser.add_argument("--pictures", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--layer", type=int, help="the block whose hidden state is taken (default: the last)")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    paths = sorted(arguments.folder.rglob("*.jpg"))
    paths = paths[:: max(1, len(paths) // arguments.pictures)][: arguments.pictures]
    work = paths, arguments.model, arguments.batch_size, arguments.layer
    ways = {
        "plain loop": lambda: plain(*work),
        "ours": lambda: ours(*work),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - begin)
    base = statistics.median(seconds["plain loop"])
    for name, taken in seconds.items():
        middle = statistics.median(taken)
        spread = f"{len(paths) / max(taken):.2f} to {len(paths) / min(taken):.2f}"
        print(f"{name}: {len(paths) / middle:.2f} pictures a second ({spread}), {base / middle:.2f}×")


if __name__ == "__main__":
    main()
