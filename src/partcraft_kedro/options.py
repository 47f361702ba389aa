"""Every option of every stage: its type, bounds, unit and source. The values are in conf/.

A misspelt option or a value out of bounds is refused before any stage runs.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from os.path import expanduser
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from partcraft_kedro.errors import UserError
from partcraft_kedro.methods import METHODS

Share = Field(ge=0, le=1)
# `~` is the user's home, also where no shell says so.
Place = Annotated[Path, AfterValidator(Path.expanduser)]
Model = Annotated[str, AfterValidator(expanduser)]


@dataclass(frozen=True)
class Silent:
    """Marks an option that no stage's result depends on."""


@dataclass(frozen=True)
class Contents:
    """Marks an option that names a file: its content counts, wherever it lies."""


@dataclass(frozen=True)
class Weights:
    """Marks an option that names a model: its weights count, wherever they lie.

    component: of the embedded model; option: its dotted name, for a sentence; by_name_too: the name counts too, since
    it is kept in the result.
    """

    component: str
    option: str
    by_name_too: bool = False


class Options(BaseModel):
    """A group of options."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    def marked(self) -> Iterator[tuple[str, Any, list[Any]]]:
        """Name, value and marks of each."""
        for name, field in type(self).model_fields.items():
            yield name, getattr(self, name), field.metadata

    def only(self, *names: str) -> "Selection":
        """Some of them, and no others."""
        return Selection(self, names)


class Selection:
    """Some options of a group: to ask for another is an AttributeError."""

    def __init__(self, options: Options, names: Collection[str]):
        self._options, self._names = options, names

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._names:
            raise AttributeError(f"{name} is none of the options {', '.join(self._names)} that were passed on")
        return getattr(self._options, name)

    def marked(self) -> Iterator[tuple[str, Any, list[Any]]]:
        """As `Options.marked`."""
        return (marked for marked in self._options.marked() if marked[0] in self._names)


class BaseModelOptions(Options):
    """The frozen text-to-image model, and where all models compute."""

    model: Annotated[Model, Weights("base", "base.model")]
    """`tiny`, a local folder in diffusers' layout, or a hub id."""
    device: Annotated[str, Silent()]
    """Where every model runs: `cpu`, `cuda`, `cuda:1`, `mps`, or `auto`, the fastest of them that is there."""
    precision: Literal["auto", "float32", "bfloat16"]
    """What the frozen text encoder and U-Net compute in; what learns stays in float32. `auto`: bfloat16 where the
    device has the arithmetic for it."""


class ImagesOptions(Options):
    """Where pictures come from."""

    source: Literal["creatures", "faces", "cub", "dogs", "sims4", "folder"]
    """`creatures` and `faces` are drawn; CUB-200-2011, Stanford Dogs and Sims4-Faces are read as published; `folder`:
    any pictures, in one folder or in one for each class."""
    folder: Place | None
    """Photographs: where they lie; none: where `kedro run --pipeline=download` puts them."""
    labels: Place | None
    """Sims4-Faces in another layout: a CSV file with the columns `file` and `class`."""
    classes: PositiveInt
    """Drawn worlds: how many species of creatures; of faces there are two kinds, women and men. tiny has never seen the
    looks of the first 20 species of seed 0 together."""
    pictures_per_class: PositiveInt
    """Drawn worlds and Sims4-Faces: pictures of each class, both splits together (the paper: 100 men, 100 women)."""
    test_fraction: float = Share
    """Share of each class's pictures kept for evaluation; CUB and Stanford Dogs publish their own split."""
    worst_broken_share: float = Share
    """Above this share of broken pictures the run stops; below it they are set aside. Five may always be, as long as
    most are good; with 0 not even one."""
    seed: NonNegativeInt
    """Of what is drawn; of the choice of faces; of the split."""


class FeaturesOptions(Options):
    """Dense features."""

    model: Annotated[Model, Weights("feature_extractor", "features.model", by_name_too=True)]
    """`tiny`, a local folder, or a hub id of DINOv2's architecture, with registers or without."""
    layer: PositiveInt | None
    """The block whose hidden state is taken, from 1; none: the last (the authors' code)."""
    final_norm: bool
    """Whether the model's final LayerNorm is applied to it (the authors' code: no)."""
    mirrored: bool
    """Whether to average with the features of the mirror image: parts that know nothing of left and right."""
    batch_size: PositiveInt
    """Pictures a forward pass."""
    shard_size: PositiveInt
    """Pictures a file."""
    workers: Annotated[NonNegativeInt, Silent()]
    """Processes that decode pictures while others are computed, at most one for each core; 0: none."""


class PartsOptions(Options):
    """Part discovery: three tiers of cosine k-means."""

    discovery: Literal["plain", "centred", "published"]
    """What tier 2 compares: `plain` features; `centred` on each picture's foreground and blurred; or the `published`
    recipe: 100 pictures, and a constant vector in the place of the background (the authors' code)."""
    parts: int = Field(ge=1, le=254)  # a label map has a byte for each patch
    """M, the number of parts (the paper: 5 for CUB, 7 for Stanford Dogs); fewer if there are fewer patches."""
    variants: PositiveInt
    """K, the number of variants of each part and of the background (the paper: 256)."""
    starts: PositiveInt
    """k-means++ starts, of which the best is kept."""
    iterations: PositiveInt
    """Lloyd iterations at most."""
    least_patches: PositiveInt
    """A part that covers fewer patches of a picture counts as absent there."""
    names: Annotated[Place | None, Silent()]
    """A YAML file that names parts, `1: head`; none: by keypoints or masks where there are any, else by number."""
    seed: NonNegativeInt
    """Of k-means."""


class TrainOptions(Options):
    """Training of part tokens under the attention loss.

    Options that a method determines may be left out, or none: they are then as methods.py has them.
    """

    method: Annotated[Literal[tuple(METHODS)], Silent()]
    """The paper's method, a rival, or an ablation: the preset of `bottleneck_layers`, `unet`,
    `unet_learning_rate_factor`, `masked_loss`, `union_sampling` and of everything about attention."""
    steps: PositiveInt
    """Optimizer steps."""
    batch_size: PositiveInt
    """Pictures an optimizer step (the paper: 2; the authors' code: 8)."""
    micro_batch: Annotated[PositiveInt | None, Silent()]
    """Pictures a forward pass: gradients are accumulated to the same sum; none: as many as memory holds."""
    gradient_checkpointing: Annotated[bool, Silent()]
    """Whether activations are computed again in the backward pass instead of kept: less memory, a third slower."""
    compile: Annotated[bool, Silent()]
    """Whether U-Net and text encoder are compiled (torch.compile): minutes to start, faster steps, the same results but
    rounding. Pictures sampled in between are drawn uncompiled."""
    learning_rate: PositiveFloat
    """AdamW's, constant after the warm-up (the paper: 1e-4)."""
    warmup_steps: NonNegativeInt = 0
    """Steps over which the learning rate rises to its value (the paper: none)."""
    average: float | None = Field(None, gt=0, lt=1)
    """Decay of a moving average of all that learns, which the adapter then holds; none: what the last step left (the
    paper)."""
    token_start: Literal["random", "centroids"] = "random"
    """What part tokens start from: noise (the paper), or their variants' `centroids`, so that alike variants start
    alike."""
    stratified_timesteps: bool = False
    """Whether the timesteps of a step's pictures lie in even strata, so that no step sees strong noise alone (the
    paper: each is drawn for itself)."""
    weight_decay: NonNegativeFloat
    """AdamW's decoupled decay (the paper: .01); rows of the part table decay only in steps that use them."""
    attention_weight: NonNegativeFloat
    """λ_attn (the paper: .01)."""
    attention_loss: Literal["cross_entropy", "squared_error"]
    """How attention is compared with masks (Eq. 5: `cross_entropy`; Break-a-Scene: `squared_error`)."""
    attention_normalisation: Literal["parts", "maximum"]
    """What attention is divided by: its sum over `parts` at each location (Eq. 5), or each map's own `maximum`
    (Break-a-Scene)."""
    masked_loss: bool
    """Whether the diffusion loss counts only where a part of the prompt is (Break-a-Scene)."""
    union_sampling: bool
    """Whether each prompt names a random subset of its picture's parts (Break-a-Scene)."""
    unet: Literal["frozen", "lora", "key_value", "full"]
    """What learns of the U-Net, beside the tokens: nothing, LoRA, the key and value weights of cross-attention, or
    all weights."""
    unet_learning_rate_factor: PositiveFloat
    """What learns of the U-Net does so at this multiple of `learning_rate`."""
    lora_learning_rate_factor: PositiveFloat = 1.0
    """LoRA learns at this multiple of that again (the paper: 1)."""
    rank: PositiveInt
    """Of LoRA (diffusers' script: 4)."""
    lora_layers: Literal["cross", "all"]
    """`cross`: q, k, v, out of cross-attention (the paper); `all`: self-attention too (the authors' code)."""
    bottleneck_layers: NonNegativeInt
    """Linear layers of the MLP f of Eq. 4 (the paper: 2, the authors' code: 3); 0 is textual inversion."""
    template_probability: float = Share
    """How often another template than `a photo of a` is used (the authors' code: .5)."""
    snr_gamma: PositiveFloat | None
    """γ of min-SNR weighting (the authors' code: 5); none leaves the loss unweighted."""
    max_gradient_norm: PositiveFloat
    """Gradients are clipped to this norm (the authors' code: 1)."""
    checkpoint_every: Annotated[PositiveInt, Silent()]
    """Steps between checkpoints."""
    log_every: Annotated[PositiveInt, Silent()]
    """Steps that one logged mean covers."""
    sample_every: Annotated[PositiveInt, Silent()]
    """Steps between sample pictures."""
    seed: NonNegativeInt
    """Of initial weights, order, flips, prompts, timesteps and noise."""

    @model_validator(mode="before")
    @classmethod
    def _as_the_method_has_it(cls, values: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(values, dict):
            return values  # the model's own complaint is the better one
        # Of an unknown method the one thing to complain about is its name.
        preset = METHODS.get(str(values.get("method")), METHODS["partcraft"])
        return values | {name: value for name, value in preset.items() if values.get(name) is None}


class SamplingOptions(Options):
    """How pictures are sampled."""

    steps: PositiveInt
    """Denoising steps (DPM-Solver++ reaches in 20 what Stable Diffusion's own sampler does in 50; the authors' code:
    30 of the latter)."""
    sampler: Literal["dpm-solver++", "model"]
    """`dpm-solver++`, or the sampler that the base model comes with (the authors' code)."""
    guidance: float = Field(ge=1)
    """Classifier-free guidance scale (the authors' code: 7.5)."""
    guidance_rescale: float = Share
    """φ of Lin et al. 2023 (arXiv:2305.08891): tames the contrast that guidance adds on a zero-SNR schedule."""
    negative_prompt: str
    """What guidance leads away from."""
    batch_size: Annotated[PositiveInt, Silent()]
    """Pictures a forward pass, while training too; where memory runs out, half of them."""


class GenerateOptions(Options):
    """Which pictures are generated for evaluation."""

    sampling: SamplingOptions
    """How they are sampled, and the pictures that training shows on its way: but for the batch size, other values train
    anew. With --tags=generate,evaluate,report they hold for the adapter that is there."""
    split: Literal["train", "test"]
    """The split whose pictures are reconstructed and composed (the paper: train)."""
    reconstructions: PositiveInt
    """Pictures reconstructed, at most (the paper: all)."""
    compositions: NonNegativeInt
    """Compositions for each number of sources (the paper: 500)."""
    transfers: NonNegativeInt
    """Pairs A, B of pictures: A is drawn with each of the `transferred` parts of B, and with all of them (the paper's
    Fig. 4)."""
    transferred: tuple[str, ...]
    """The parts that are transferred, by name."""
    most_sources: int = Field(ge=1, le=4)
    """The largest number of source pictures N of Algorithm 1 (the paper: 4); as many as there are pictures and labels,
    if these are fewer."""
    seed: NonNegativeInt
    """Of the choice of pictures and parts, and of initial noise."""


class EvaluateOptions(Options):
    """How results are summed up."""

    part_identity: Annotated[Model | None, Weights("feature_extractor", "evaluate.part_identity")]
    """A second image encoder (CLIP, another DINOv2), a folder or a hub id, that compares each part with its source's,
    and had no part in finding them; none: no such measure."""

    bootstrap: PositiveInt
    """Resamples of each 95% interval."""
    inception: Annotated[Place | None, Contents()]
    """Weights of FID's Inception-v3, `pt_inception-2015-12-05-6726825d.pth`; none: no FID, the distances on other
    features alone."""
    examples: Annotated[PositiveInt, Silent()]
    """Rows in each figure."""
    seed: NonNegativeInt
    """Of the bootstrap, the floor's random pictures, and the figures' examples."""


class SweepOptions(Options):
    """A grid of runs."""

    options: dict[str, Any] = {}
    """Options that all points have in common, by dotted name."""
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(min_length=1)
    """Options by dotted name, each with the values that it takes; every combination is a point."""
    seeds: list[NonNegativeInt] = Field([0, 1, 2], min_length=1)
    """Values of `train.seed` that every combination is run with: the pictures that are asked for stay the same."""


class PretrainOptions(Options):
    """How tiny is made; `base.device` and `base.precision` say where and in what."""

    pictures: int = Field(ge=512)
    """Drawings to learn from, all worlds together; the first 256 are kept to gauge by."""
    autoencoder_steps: PositiveInt
    """Steps of the VAE, 16 crops each."""
    decoder_steps: PositiveInt
    """Further steps of the VAE's decoder alone, 16 crops each."""
    observer_steps: PositiveInt
    """Steps of the vision transformer, and of the judge, 32 pictures each."""
    text_steps: PositiveInt
    """Steps of the text encoder alone, 64 captions each."""
    coarse_steps: PositiveInt
    """Steps of text encoder and U-Net at half the resolution."""
    coarse_batch: PositiveInt
    """Pictures a step there."""
    fine_steps: PositiveInt
    """Steps of text encoder and U-Net at full resolution, small parts weighing more than their area."""
    plain_steps: PositiveInt
    """Further steps there, all locations weighing the same."""
    fine_batch: PositiveInt
    """Pictures a step at full resolution."""
    seed: NonNegativeInt
    """Of everything drawn; must differ from images.seed."""


GROUPS: dict[str, type[BaseModel]] = {
    "base": BaseModelOptions,
    "images": ImagesOptions,
    "features": FeaturesOptions,
    "parts": PartsOptions,
    "train": TrainOptions,
    "generate": GenerateOptions,
    "evaluate": EvaluateOptions,
    "pretrain": PretrainOptions,
}
"""All options, by their names in conf/ and after `--params`."""


def refuse_unknown_groups(names: Iterable[str]) -> None:
    """Raise UserError for a group of options that there is not."""
    for name in names:
        if name not in GROUPS:
            raise UserError(f"There are no options {name!r}: there are {', '.join(GROUPS)}.")


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Options or scores by dotted names."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, BaseModel):
            value = value.model_dump(mode="json")
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
