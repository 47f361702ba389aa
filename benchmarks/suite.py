"""Every subject's ways beside a baseline, in one process, alternately: what `make bench` runs.

    python benchmarks/suite.py [--rounds 5] [--only training sampling] [--output docs]

On the CPU, with tiny and drawn creatures; nothing is needed from elsewhere. Writes benchmarks.json, benchmarks.md and
benchmarks.png. Run nothing beside it.
"""

import argparse
from pathlib import Path

from measure import Result
from report import write_report
from subjects import evaluation, features, kmeans, latents, sampling, training
from subjects.scaling import scaling
from subjects.world import make_world

SUBJECTS = {
    "features": features.measure,
    "kmeans": kmeans.measure,
    "latents": latents.measure,
    "training": training.measure,
    "sampling": sampling.measure,
    "evaluation": evaluation.measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, help="some subjects alone; no report is written then")
    parser.add_argument("--output", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    with make_world() as world:
        results: list[list[Result]] = []
        facts: dict[str, object] = {}
        for subject in arguments.only or SUBJECTS:
            found, known = SUBJECTS[subject](world, arguments.rounds)
            results.append(found)
            facts |= known
        if not arguments.only:
            write_report(results, facts, scaling(world, arguments.rounds), arguments.output)
            print(f"Written to {arguments.output}/benchmarks.md")


if __name__ == "__main__":
    main()
