"""Every option of every stage: its type, bounds, unit and source, and the paper's value where it has one.

conf/ holds what a dataset changes. A misspelt option or a value out of bounds is refused before any stage runs.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
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

from partcraft_kedro.errors import unknown
from partcraft_kedro.methods import METHODS

# `~` is the user's home, also where no shell says so.
Place = Annotated[Path, AfterValidator(Path.expanduser)]
Model = Annotated[str, AfterValidator(expanduser)]
Scheduler = Literal["dpm-solver++", "sde-dpm-solver++", "model"]


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


@dataclass(frozen=True)
class Config:
    """Marks an option that names a model of which settings and tokenizers alone count, wherever they lie."""


_CALLED_NOW = {
    "worst_broken_share": "max_broken_share",
    "starts": "n_init",
    "iterations": "max_iter",
    "least_patches": "min_patches",
    "most_sources": "max_sources",
    "guidance": "guidance_scale",
    "sampler": "scheduler",
}


class Options(BaseModel):
    """A group of options. One that there is not is refused with the one that may be meant."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: Any) -> Any:
        for name in values if isinstance(values, dict) else ():
            if name not in cls.model_fields:
                close = get_close_matches(str(name), cls.model_fields, n=1)
                meant = _CALLED_NOW.get(name) or (close[0] if close else None)
                raise ValueError(f"there is no option {name!r}" + (f", did you mean {meant!r}?" if meant else ""))
        return values

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
        if name.startswith("_"):  # which pickle asks for before there are any
            raise AttributeError(name)
        if name not in self._names:
            raise AttributeError(f"{name} is none of the options {', '.join(self._names)} that were passed on")
        return getattr(self._options, name)

    def marked(self) -> Iterator[tuple[str, Any, list[Any]]]:
        """As `Options.marked`."""
        return (marked for marked in self._options.marked() if marked[0] in self._names)


class BaseModelOptions(Options):
    """The frozen text-to-image model, and where all models compute."""

    model: Annotated[Model, Weights("base", "base.model")] = "tiny"
    """`tiny`, a local folder in diffusers' layout, a hub id, or a checkpoint in one file, `.safetensors`."""
    config: Annotated[Model | None, Config()] = None
    """Of a checkpoint in one file: a local folder in diffusers' layout, or a hub id, with settings and tokenizers of
    such a model; weights there are not read. None: those of Stable Diffusion 1.5 or SDXL, from the hub."""
    size: PositiveInt | None = None
    """Side of its pictures in pixels; none: that of the pictures it was trained on, 512 of Stable Diffusion 1.5, 1024
    of SDXL."""
    device: Annotated[str, Silent()] = "auto"
    """Where every model runs: `cpu`, `cuda`, `cuda:1`, `mps`, or `auto`, the fastest of them that is there."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """What the frozen text encoder and U-Net compute in; what learns stays in float32. `auto`: bfloat16 where the
    device has the arithmetic for it."""


class ImagesOptions(Options):
    """Where pictures come from."""

    source: Literal["creatures", "faces", "cub", "dogs", "sims4", "folder"] = "creatures"
    """`creatures` and `faces` are drawn; CUB-200-2011, Stanford Dogs and Sims4-Faces are read as published; `folder`:
    any pictures, in one folder or in one for each class."""
    folder: Place | None = None
    """Photographs: where they lie; none: where `kedro run --pipelines=download` puts them."""
    labels: Place | None = None
    """Sims4-Faces in another layout: a CSV file with the columns `file` and `class`."""
    classes: PositiveInt = 20
    """Drawn worlds: how many species of creatures; of faces there are two kinds, women and men. tiny has never seen the
    looks of the first 20 species of seed 0 together."""
    pictures_per_class: PositiveInt = 30
    """Drawn worlds and Sims4-Faces: pictures of each class, both splits together (the paper: 100 men, 100 women)."""
    test_fraction: float = Field(0.2, ge=0, le=1)
    """Share of each class's pictures kept for evaluation; CUB and Stanford Dogs publish their own split."""
    max_broken_share: float = Field(0.01, ge=0, le=1)
    """Above this share of broken pictures the run stops; below it they are set aside. Five may always be, as long as
    most are good; with 0 not even one."""
    seed: NonNegativeInt = 0
    """Of what is drawn; of the choice of faces; of the split."""


class FeaturesOptions(Options):
    """Dense features."""

    model: Annotated[Model, Weights("feature_extractor", "features.model", by_name_too=True)] = "tiny"
    """`tiny`, a local folder, or a hub id of DINOv2's or DINOv3's architecture, with registers or without."""
    layer: PositiveInt | None = None
    """The block whose hidden state is taken, from 1; none: the last (the authors' code)."""
    final_norm: bool = False
    """Whether the model's final LayerNorm is applied to it (the authors' code: no)."""
    size: PositiveInt | None = None
    """Side of the pictures in pixels; none: as the model's image processor has it (the authors' code: 224, which makes
    16×16 patches of DINOv2). 448 makes 32×32, and four to five times the work."""
    mirrored: bool = False
    """Whether to average with the features of the mirror image: parts that know nothing of left and right."""
    batch_size: PositiveInt = 32
    """Pictures a forward pass."""
    shard_size: PositiveInt = 128
    """Pictures a file."""


class PartsOptions(Options):
    """Part discovery: three tiers of cosine k-means."""

    discovery: Literal["plain", "centred", "trimmed", "whitened", "published"] = "plain"
    """What tier 2 compares: `plain` features; `centred` on each picture's foreground and blurred; the same on a
    foreground `trimmed` of perches and the like; the same after features were `whitened` by what random crops of 256
    training pictures change, which tier 3 compares too; or the `published` recipe: 100 pictures, and a constant vector
    in the place of the background (the authors' code)."""
    parts: int = Field(5, ge=1, le=254)
    """M, the number of parts (the paper: 5 for CUB, 7 for Stanford Dogs); fewer if there are fewer patches."""
    variants: PositiveInt = 256
    """K, the number of variants of each part and of the background (the paper: 256); fewer with `merge`."""
    merge: bool = False
    """Whether variants that no gap between pictures separates become one (the paper: no): then `variants` is a limit,
    and each part has as many as it has looks."""
    n_init: PositiveInt = 4
    """k-means++ starts, of which the best is kept."""
    max_iter: PositiveInt = 50
    """Lloyd iterations at most."""
    min_patches: PositiveInt = 2
    """A part that covers fewer patches of a picture counts as absent there."""
    min_pictures: PositiveInt = 1
    """A variant that fewer training pictures show is given up, and these go to the next nearest."""
    names: Annotated[Place | None, Silent()] = None
    """A YAML file that names parts, `1: head`; none: by keypoints or masks where there are any, else by number."""
    seed: NonNegativeInt = 0
    """Of k-means."""


class TrainOptions(Options):
    """Training of part tokens under the attention loss.

    Options that a method determines may be left out, or none: they are then as methods.py has them.
    """

    method: Annotated[Literal[tuple(METHODS)], Silent()] = "partcraft"  # type: ignore[valid-type]  # methods.py names them
    """The paper's method, a rival, or an ablation: the preset of `bottleneck_layers`, `unet`,
    `unet_learning_rate_factor`, `masked_loss`, `union_sampling` and of everything about attention."""
    steps: PositiveInt = 20_000
    """Optimizer steps."""
    batch_size: PositiveInt = 2
    """Pictures an optimizer step (the paper: 2; the authors' code: 8)."""
    micro_batch: Annotated[PositiveInt | None, Silent()] = None
    """Pictures a forward pass: gradients are accumulated to the same sum; none: as many as memory holds."""
    gradient_checkpointing: Annotated[bool, Silent()] = False
    """Whether activations are computed again in the backward pass instead of kept: less memory, a third slower."""
    compile: Annotated[bool, Silent()] = False
    """Whether U-Net and text encoder are compiled (torch.compile): minutes to start, faster steps, the same results but
    rounding. Pictures sampled in between are drawn uncompiled."""
    learning_rate: PositiveFloat = 1e-4
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
    weight_decay: NonNegativeFloat = 0.01
    """AdamW's decoupled decay (the paper: .01); rows of the part table decay only in steps that use them."""
    attention_weight: NonNegativeFloat = 0.01
    """λ_attn (the paper: .01)."""
    attention_loss: Literal["cross_entropy", "squared_error"] = "cross_entropy"
    """How attention is compared with masks (Eq. 5: `cross_entropy`; Break-a-Scene: `squared_error`)."""
    attention_normalisation: Literal["parts", "maximum"] = "parts"
    """What attention is divided by: its sum over `parts` at each location (Eq. 5), or each map's own `maximum`
    (Break-a-Scene)."""
    masked_loss: bool = False
    """Whether the diffusion loss counts only where a part of the prompt is (Break-a-Scene)."""
    union_sampling: bool = False
    """Whether each prompt names a random subset of its picture's parts (Break-a-Scene)."""
    unet: Literal["frozen", "lora", "key_value", "full"] = "lora"
    """What learns of the U-Net, beside the tokens: nothing, LoRA, the key and value weights of cross-attention, or
    all weights."""
    unet_learning_rate_factor: PositiveFloat = 1.0
    """What learns of the U-Net does so at this multiple of `learning_rate`."""
    lora_learning_rate_factor: PositiveFloat = 1.0
    """LoRA learns at this multiple of that again (the paper: 1)."""
    rank: PositiveInt = 4
    """Of LoRA (diffusers' script: 4)."""
    lora_layers: Literal["cross", "all"] = "cross"
    """`cross`: q, k, v, out of cross-attention (the paper); `all`: self-attention too (the authors' code)."""
    bottleneck_layers: NonNegativeInt = 2
    """Linear layers of the MLP f of Eq. 4 (the paper: 2, the authors' code: 3); 0 is textual inversion."""
    template_probability: float = Field(0.0, ge=0, le=1)
    """How often another template than `a photo of a` is used (the authors' code: .5)."""
    snr_gamma: PositiveFloat | None = None
    """γ of min-SNR weighting (the authors' code: 5); none leaves the loss unweighted."""
    max_gradient_norm: PositiveFloat = 1.0
    """Gradients are clipped to this norm (the authors' code: 1)."""
    checkpoint_every: Annotated[PositiveInt, Silent()] = 1000
    """Steps between checkpoints."""
    log_every: Annotated[PositiveInt, Silent()] = 100
    """Steps that one logged mean covers."""
    sample_every: Annotated[PositiveInt, Silent()] = 5000
    """Steps between sample pictures."""
    seed: NonNegativeInt = 0
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

    steps: PositiveInt = 20
    """Denoising steps (DPM-Solver++ reaches in 20 what Stable Diffusion's own sampler does in 50; the authors' code:
    30 of the latter)."""
    scheduler: Scheduler = "dpm-solver++"
    """`dpm-solver++`; `sde-dpm-solver++`, with fresh noise in each step, which corrects what steps before got wrong; or
    `model`, the one that the base model comes with (the authors' code)."""
    guidance_scale: float = Field(7.5, ge=1)
    """Classifier-free guidance scale (the authors' code: 7.5)."""
    guidance_rescale: float = Field(0.0, ge=0, le=1)
    """φ of Lin et al. 2023 (arXiv:2305.08891): tames the contrast that guidance adds on a zero-SNR schedule."""
    negative_prompt: str = ""
    """What guidance leads away from."""
    batch_size: Annotated[PositiveInt, Silent()] = 16
    """Pictures a forward pass, while training too; fewer where memory does not hold them."""
    compile: Annotated[bool, Silent()] = False
    """Whether the stage of generation compiles the U-Net (torch.compile): minutes to start, faster steps, the same
    pictures but rounding. What training and `kedro compose` show is drawn uncompiled."""


class GenerateOptions(Options):
    """Which pictures are generated for evaluation."""

    sampling: SamplingOptions = SamplingOptions()
    """How they are sampled, and the pictures that training shows on its way: but for the batch size, other values train
    anew. With --tags=generate,evaluate,report they hold for the adapter that is there."""
    split: Literal["train", "test"] = "train"
    """The split whose pictures are reconstructed and composed (the paper: train)."""
    reconstructions: PositiveInt = 500
    """Pictures reconstructed, at most (the paper: all)."""
    compositions: NonNegativeInt = 500
    """Compositions for each number of sources (the paper: 500): chains of pictures of one noise, in each of which one
    part more is swapped, so that it can be told what a swap changes beside its part."""
    transfers: NonNegativeInt = 0
    """Pairs A, B of pictures: A is drawn as it is, with each of the `transferred` parts of B, and with all of them, all
    from one noise (the paper's Fig. 4)."""
    transferred: tuple[str, ...] = ()
    """The parts that are transferred, by name."""
    max_sources: int = Field(4, ge=1, le=4)
    """The largest number of source pictures N of Algorithm 1 (the paper: 4); as many as there are pictures and labels,
    if these are fewer."""
    seed: NonNegativeInt = 0
    """Of the choice of pictures and parts, and of initial noise."""


class EvaluateOptions(Options):
    """How results are summed up."""

    part_identity: Annotated[Model | None, Weights("feature_extractor", "evaluate.part_identity")] = None
    """A second image encoder (CLIP, another DINOv2), a folder or a hub id, that compares each part with its source's,
    and had no part in finding them; none: no such measure."""

    bootstrap: PositiveInt = 2000
    """Resamples of each 95% interval."""
    inception: Annotated[Place | None, Contents()] = None
    """Weights of FID's Inception-v3, `pt_inception-2015-12-05-6726825d.pth`; none: no FID, the distances on other
    features alone."""
    examples: Annotated[PositiveInt, Silent()] = 8
    """Rows in each figure."""
    seed: NonNegativeInt = 0
    """Of the bootstrap, the floor's random pictures, and the figures' examples."""


class ComputeOptions(Options):
    """On which machines pictures are worked on one by one: features, latents, generated pictures and their scores."""

    engine: Annotated[Literal["local", "ray"], Silent()] = "local"
    """`local`: this process; `ray`: a worker on each GPU of a Ray cluster or, where it has none, on each machine."""
    address: Annotated[str | None, Silent()] = None
    """The cluster's, `host:port`; none: that of RAY_ADDRESS, else a Ray of this machine alone is started."""


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

    pictures: int = Field(16_000, ge=512)
    """Drawings to learn from, all worlds together; the first 256 are kept to gauge by."""
    autoencoder_steps: PositiveInt = 1500
    """Steps of the VAE, 16 crops each."""
    decoder_steps: PositiveInt = 800
    """Further steps of the VAE's decoder alone, 16 crops each."""
    observer_steps: PositiveInt = 500
    """Steps of the vision transformer, and of the judge, 32 pictures each."""
    text_steps: PositiveInt = 400
    """Steps of the text encoder alone, 64 captions each."""
    coarse_steps: PositiveInt = 2500
    """Steps of text encoder and U-Net at half the resolution."""
    coarse_batch: PositiveInt = 32
    """Pictures a step there."""
    fine_steps: PositiveInt = 3200
    """Steps of text encoder and U-Net at full resolution, small parts weighing more than their area."""
    plain_steps: PositiveInt = 8000
    """Further steps there, all locations weighing the same."""
    fine_batch: PositiveInt = 16
    """Pictures a step at full resolution."""
    seed: NonNegativeInt = 1
    """Of everything drawn; must differ from images.seed."""


GROUPS: dict[str, type[BaseModel]] = {
    "base": BaseModelOptions,
    "images": ImagesOptions,
    "features": FeaturesOptions,
    "parts": PartsOptions,
    "train": TrainOptions,
    "generate": GenerateOptions,
    "evaluate": EvaluateOptions,
    "compute": ComputeOptions,
    "pretrain": PretrainOptions,
}
"""All options, by their names in conf/ and after `--params`."""


def refuse_unknown_groups(names: Iterable[str]) -> None:
    """Raise UserError for a group of options that there is not."""
    for name in names:
        if name not in GROUPS:
            raise unknown("group of options", name, GROUPS)


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Options or scores by dotted names."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, BaseModel):
            value = value.model_dump(mode="json")
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def in_words(option: str, value: Any) -> str:
    """An option's value as runs are named by it: `λ 0.1`, `300 steps`, `rank 4`."""
    words = {"train.attention_weight": f"λ {value}", "train.steps": f"{value} steps", "train.method": str(value)}
    return words.get(option) or f"{option.rpartition('.')[2].replace('_', ' ')} {value}"
