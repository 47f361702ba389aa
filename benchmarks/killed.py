"""Kill `kedro run --env=test` at random moments, go on by the same command, and compare with a run never killed.

    python benchmarks/killed.py [--kills 100] [--seed 0]

The moments are those of a Poisson process, four in the time that a run takes alone. Whenever a run comes to its end,
every file of its data folder is compared by its bytes with those of the run that was never killed, but for locks and
versions' names, and a fresh folder is begun. Prints how many runs were killed in each stage (`start`: before the first
node), and how many files were compared and differed; exit code 1 if any did.
"""

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from tqdm import tqdm

from runs import STAGES, Run, contents, differing, seconds_alone, table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    kills: Counter[str] = Counter()
    compared, differ, finished, folder = 0, [], 0, 0
    with tempfile.TemporaryDirectory() as temporary, tqdm(total=arguments.kills, unit="kill") as progress:
        alone, place = Path(temporary) / "alone", Path(temporary) / "0"
        longest = seconds_alone(alone)
        expected = contents(alone / "data")
        while kills.total() < arguments.kills or place.exists():
            progress.set_description(f"folder {folder}")
            run = Run(place)
            last = kills.total() == arguments.kills  # this one goes to its end
            code = run.wait(None if last else rng.exponential(longest / 4))
            if code is None:
                run.kill()
                kills[run.stage] += 1
                progress.update()
                continue
            if code != 0:
                raise SystemExit(f"Killed in {dict(kills)}, the same command does not go on:\n{run.output}")
            found = contents(place / "data")
            compared += len(expected.keys() | found.keys())
            differ += [f"{folder}/{path}" for path in differing(found, expected)]
            finished += 1
            folder += 1
            place = place.with_name(str(folder))
    print(table(["killed in", "runs"], [(stage, kills[stage]) for stage in ("start", *STAGES)]))
    print(f"\n{kills.total()} kills, {finished} folders finished, {compared} files compared, {len(differ)} differ")
    print("\n".join(differ))
    sys.exit(bool(differ))


if __name__ == "__main__":
    main()
