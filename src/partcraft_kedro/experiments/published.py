"""What the paper reports, keyed so that it can stand beside our own numbers, and the set-up behind it."""

from typing import NamedTuple

PAPER_WEIGHT = 0.01
"""λ_attn of every experiment of the paper that does not vary it."""

SOURCES = {
    "a": "the paper's supplementary material, Tab. 1",
    "b": "the paper's supplementary material, E.2",
    "c": "read off the paper's figures, ±.002",
}
"""Where the numbers stand, each with the letter that marks its numbers in tables."""

# CUB's train split reconstructed: method, λ_attn (0: no attention loss), FID, EMR, CoSim (None: not reported), source.
_RECONSTRUCTIONS = (
    ("partcraft", 0.1, 19.08, 0.339, 0.851, "a"),
    ("partcraft", 0.01, 12.86, 0.460, 0.882, "a"),
    ("partcraft", 0.001, 12.44, 0.445, 0.880, "a"),
    ("partcraft", 0.0001, 11.78, 0.425, 0.878, "a"),
    ("partcraft", 0.00001, 11.64, 0.397, 0.872, "a"),
    ("break_a_scene", 0.1, None, 0.366, 0.841, "b"),
    ("break_a_scene", 0.01, None, 0.390, 0.854, "b"),
    ("break_a_scene", 0.001, None, 0.344, 0.832, "b"),
    ("break_a_scene", 0.01, 20.05, None, None, "c"),
    ("textual_inversion", 0, 10.10, 0.305, 0.842, "c"),
    ("dreambooth", 0, 12.94, 0.355, 0.856, "c"),
    ("custom_diffusion", 0, 37.61, 0.338, 0.833, "c"),
    ("no_bottleneck", 0.01, 16.36, None, None, "c"),
    ("mse_attention", 0.01, 13.55, None, None, "c"),
)

# Compositions of 1, 2, 3 and 4 sources, all read off the figures: dataset, method, λ_attn, measure, values.
_COMPOSITIONS = (
    ("cub", "partcraft", 0.01, "emr", (0.386, 0.291, 0.228, 0.202)),
    ("cub", "break_a_scene", 0.01, "emr", (0.329, 0.241, 0.193, 0.156)),
    ("cub", "dreambooth", 0, "emr", (0.280, 0.193, 0.130, 0.095)),
    ("cub", "custom_diffusion", 0, "emr", (0.260, 0.168, 0.122, 0.091)),
    ("cub", "textual_inversion", 0, "emr", (0.241, 0.166, 0.120, 0.092)),
    ("cub", "no_bottleneck", 0.01, "emr", (0.377, 0.291, 0.236, 0.202)),
    ("cub", "mse_attention", 0.01, "emr", (0.320, 0.246, 0.194, 0.162)),
    ("cub", "partcraft", 0.01, "cosim", (0.851, 0.821, 0.801, 0.788)),
    ("dogs", "partcraft", 0.01, "emr", (0.295, 0.251, 0.214, 0.165)),
    ("dogs", "partcraft", 0.01, "cosim", (0.777, 0.765, 0.755, 0.740)),
)

PAPER_OPTIONS = {
    "base.model": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "features.model": "facebook/dinov2-base",
    "features.layer": None,
    "features.size": 224,
    "features.mirrored": False,
    "parts.discovery": "published",
    "parts.min_pictures": 1,
    "parts.variants": 256,
    "train.batch_size": 2,
    "train.learning_rate": 1e-4,
    "train.weight_decay": 0.01,
    "train.attention_weight": PAPER_WEIGHT,
    "train.rank": 4,
    "train.lora_layers": "cross",
    "train.bottleneck_layers": 2,
    "generate.split": "train",
    "generate.compositions": 500,
    "generate.sampling.steps": 30,
    "generate.sampling.scheduler": "model",
    "generate.sampling.guidance_scale": 7.5,
}
"""The paper's set-up by our options' names: its supplementary material; features, discovery and sampling: the authors'
code."""

PAPER_OPTIONS_OF = {
    "cub": {"parts.parts": 5, "train.steps": 299_700, "generate.reconstructions": 5_994},
    "dogs": {"parts.parts": 7, "train.steps": 600_000, "generate.reconstructions": 12_000},
}
"""What differs with the dataset: parts, 100 epochs of batches of 2, and the whole train split."""


class Published(NamedTuple):
    """A number of the paper, and the letter of its source in SOURCES."""

    value: float
    source: str


def _every_number() -> dict[tuple[str, str, float, str, str], Published]:
    numbers = {}
    for method, weight, fid, emr, cosim, source in _RECONSTRUCTIONS:
        for task, measure, value in (
            ("fid", "frechet", fid),
            ("reconstruction", "emr", emr),
            ("reconstruction", "cosim", cosim),
        ):
            if value is not None:
                numbers["cub", method, weight, task, measure] = Published(value, source)
    for dataset, method, weight, measure, values in _COMPOSITIONS:
        for count, value in enumerate(values, start=1):
            numbers[dataset, method, weight, f"composition of {count}", measure] = Published(value, "c")
    return numbers


_NUMBERS = _every_number()


def published_value(dataset: str, method: str, attention_weight: float, task: str, measure: str) -> Published | None:
    """The paper's number for a method at a λ_attn, 0 for one without an attention loss; none: not reported.

    task, measure: as in a score table; `composition of n` counts sources, N of Algorithm 1, as the paper's "n parts".
    """
    return _NUMBERS.get((dataset, method, attention_weight, task, measure))
