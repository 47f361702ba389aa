"""The model card: what an export is, and how each program is told to use it."""

from collections.abc import Sequence
from pathlib import Path

from partcraft_kedro.export.adapter import Adapter, Base
from partcraft_kedro.export.words import Program, Word, example_of
from partcraft_kedro.generation.schedulers import ALGORITHMS, SAMPLERS
from partcraft_kedro.options import SamplingOptions
from partcraft_kedro.templates import load_template
from partcraft_kedro.weights import is_hub_id


def render_card(
    adapter: Adapter,
    base: Base,
    title: str,
    words: Sequence[Word],
    programs: Sequence[Program],
    sampling: SamplingOptions,
    hub: str | None,
) -> str:
    """`README.md` of an export. programs: those that it is for; hub: the name that it is uploaded under, if it is."""
    example = example_of(words)
    commonest = sorted(words, key=lambda word: -word.count)
    parts = dict.fromkeys(word.part for word in words)
    training = {name: value for name, value in adapter.settings["training"].items() if value is not None}
    return load_template(Path(__file__).with_name("card.md.j2")).render(
        title=title,
        base=base,
        address=_address_of(base.name),
        loading=_loading(base),
        learnt=adapter.learnt,
        parts=[(part, [word for word in commonest if word.part == part]) for part in parts],
        prompts={program.name: program.prompt(example) for program in programs},
        arguments=_arguments(sampling, base.side),
        sampling=sampling,
        algorithm=ALGORITHMS.get(sampling.scheduler),
        sampler=SAMPLERS.get(sampling.scheduler),
        hub=hub,
        training=sorted(training.items()),
    )


def _address_of(name: str) -> str:
    """What a model is loaded by: no path of this machine."""
    if name == "tiny":
        return "partcraft_kedro/tiny/base"
    return name if is_hub_id(name) else f"path/to/{Path(name).resolve().name}"


def _loading(base: Base) -> str:
    """The call that loads a base model, but for how."""
    kind = "StableDiffusionXLPipeline" if base.family == "XL" else "StableDiffusionPipeline"
    how = "from_single_file" if Path(base.name).is_file() else "from_pretrained"
    config = f', config="{_address_of(base.config)}"' if base.config else ""
    return f'{kind}.{how}("{_address_of(base.name)}"{config}'


def _arguments(sampling: SamplingOptions, side: int) -> str:
    """How pictures are sampled, as arguments of diffusers' pipeline."""
    arguments: dict[str, float | str] = {
        "height": side,
        "width": side,
        "num_inference_steps": sampling.steps,
        "guidance_scale": sampling.guidance_scale,
    }
    if sampling.guidance_rescale:
        arguments["guidance_rescale"] = sampling.guidance_rescale
    if sampling.negative_prompt:
        arguments["negative_prompt"] = sampling.negative_prompt
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())
