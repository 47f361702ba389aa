"""Two `kedro run --env=test` of other options at once, in one data folder, compared with each of them alone.

    python benchmarks/beside.py [--times 10] [--seed 0]

The second begins up to three seconds after the first. Then every file in a folder named by a fingerprint must be as
the run alone leaves it, every other file as one of the two leaves it, and every MLflow run must have the artifacts of
one of the two. Prints how many files were compared and differed; exit code 1 if any did.
"""

import argparse
import sys
import tempfile
import time
from itertools import permutations
from pathlib import Path

import numpy as np
from tqdm import tqdm

from runs import PROJECT, Run, contents, differing

OPTIONS = ((), ("--params=parts.variants=3,train.steps=6",))


def artifacts(place: Path) -> list[dict[str, bytes]]:
    """Of each MLflow run, but for the pictures of training, which are named by the time."""
    runs = (place / "mlartifacts").glob("*/artifacts")
    return [
        {path: content for path, content in contents(run).items() if path.startswith(("report/", "adapter/"))}
        for run in runs
    ]


def run_beside(place: Path, delay: float = 0.0, project: Path = PROJECT) -> None:
    """Run both at once; SystemExit if one of them fails."""
    first = Run(place, *OPTIONS[0], project=project, name="first")
    time.sleep(delay)
    second = Run(place, *OPTIONS[1], project=project, name="second")
    for run in (first, second):
        run.finish()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    compared, differ = 0, []
    with tempfile.TemporaryDirectory() as temporary:
        alone = [Path(temporary) / f"alone{i}" for i in range(len(OPTIONS))]
        for place, options in zip(alone, OPTIONS, strict=True):
            Run(place, *options).finish()
        files, logged = [contents(place / "data") for place in alone], [artifacts(place)[0] for place in alone]
        for i in tqdm(range(arguments.times), unit="pair"):
            place = Path(temporary) / str(i)
            run_beside(place, rng.uniform(0, 3))
            found, of_runs = contents(place / "data"), artifacts(place)
            compared += len(found) + sum(map(len, of_runs))
            differ += [f"{i}/{path}" for path in differing(found, *files)]
            orders = [  # which MLflow run is whose is not noted
                [path for of_run, of_alone in zip(order, logged, strict=True) for path in differing(of_run, of_alone)]
                for order in permutations(of_runs)
            ]
            differ += [f"{i}/mlartifacts/{path}" for path in min(orders, key=len)]
    print(f"{arguments.times} pairs, {compared} files compared, {len(differ)} differ")
    print("\n".join(differ))
    sys.exit(bool(differ))


if __name__ == "__main__":
    main()
