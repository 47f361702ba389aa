"""What `make bench` writes: benchmarks.json, benchmarks.md and benchmarks.png."""

import json
import platform
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch

from measure import Result
from partcraft_kedro.devices import half_precision


def write_report(results: list[list[Result]], facts: dict, tables: dict[str, pd.DataFrame], folder: Path) -> None:
    """results: a list for each subject, its baseline first; tables: as `subjects.scaling` makes them."""
    about = {
        "processor threads": torch.get_num_threads(),
        "bfloat16 arithmetic": half_precision("cpu") is torch.bfloat16,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    rows = [result.to_row(of_subject[0]) for of_subject in results for result in of_subject]
    scaling = {name: table.to_dict("records") for name, table in tables.items()}
    content = {"machine": about, "results": rows, "facts": facts, "scaling": scaling}
    (folder / "benchmarks.json").write_text(json.dumps(content, indent=1) + "\n")
    _draw(tables, folder / "benchmarks.png")
    lines = ["# Benchmarks", "", "Written by `make bench`: tiny and drawn creatures, on the CPU.", ""]
    lines += [f"- {name}: {value}" for name, value in about.items()]
    lines += [
        "",
        "| | way | items a second | lowest – highest | memory, MiB | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        spread = f"{min(row['rates']):.2f} – {max(row['rates']):.2f}"
        ways = f"| {row['subject']} | {row['way']} | {row['median']:.2f} {row['item']}s | {spread}"
        lines.append(f"{ways} | {row['peak']:.0f} | {row['ratio']:.2f}× |")
    lines += [
        "",
        "Ways of one subject ran alternately in one process; figures are medians; the first way is the baseline.",
        "Memory is the most that a way took above what the process held. Freed memory is kept for all ways alike.",
        "",
    ]
    for name, value in facts.items():
        of_each = "; ".join(f"{way} {found}" for way, found in value.items()) if isinstance(value, dict) else value
        lines.append(f"- {name}: {of_each}")
    lines += ["", "## Scaling", "", "![Scaling](benchmarks.png)", ""]
    for table in tables.values():
        lines += ["| " + " | ".join(table.columns) + " |", "|" + "---|" * len(table.columns)]
        lines += ["| " + " | ".join(f"{value:.4g}" for value in row) + " |" for row in table.itertuples(index=False)]
        lines.append("")
    (folder / "benchmarks.md").write_text("\n".join(lines))


def _draw(tables: dict[str, pd.DataFrame], path: Path) -> None:
    figure, axes = plt.subplots(1, 4, figsize=(15, 3.4), layout="constrained")
    batch, parts, dataset = tables["batch"], tables["parts"], tables["dataset"]
    axes[0].plot(batch["pictures a step"], batch["seconds"], "o-")
    axes[0].set(title="a step against its pictures", xlabel="pictures", ylabel="seconds")
    axes[1].plot(batch["pictures a step"], batch["MiB"], "o-")
    axes[1].set(title="memory of a step, from shapes", xlabel="pictures", ylabel="MiB")
    axes[2].plot(parts["parts"], parts["seconds"], "o-")
    axes[2].set(title="a step of 8 against M", xlabel="parts", ylabel="seconds")
    for column in ("seconds to open", "seconds to draw 8"):
        axes[3].plot(dataset["pictures"], dataset[column], "o-", label=column)
    axes[3].set(title="the cache against the dataset", xlabel="pictures", xscale="log", yscale="log")
    axes[3].legend(frameon=False, fontsize=8)
    for axis in axes[:3]:
        axis.set(xlim=(0, None), ylim=(0, 1.2 * axis.lines[0].get_ydata().max()))
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=90)
