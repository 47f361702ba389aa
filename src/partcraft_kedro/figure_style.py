"""What figures have in common: colours, and what to show where there is nothing to show."""

import numpy as np
from matplotlib.figure import Figure

# Background first; distinct in print and for colour-blind eyes (after Okabe & Ito).
COLOURS = ("#3c3c3c", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#d55e00", "#cc79a7", "#0072b2", "#999999")


def part_colours(count: int) -> list[str]:
    """One colour for each of `count` labels, repeated when they run out."""
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


def figure_of_words(text: str) -> Figure:
    """A small figure that says why there is nothing to see."""
    figure = Figure(figsize=(5, 1))
    figure.text(0.5, 0.5, text, ha="center", va="center")
    return figure


def bare(axes: np.ndarray) -> None:
    """Take ticks and frames away, an array of axes."""
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        for spine in axis.spines.values():
            spine.set_visible(False)
