"""Pictures of exported files, drawn by diffusers in a process that cannot import this project, against ours."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from partcraft_kedro.export.folder import write_export
from partcraft_kedro.generation.sampling import sample_pictures
from partcraft_kedro.model.partcraft import PartCraft
from partcraft_kedro.options import SamplingOptions
from partcraft_kedro.randomness import torch_generator
from partcraft_kedro.weights import TINY

PROMPT = "a photo of a [0,1] [1,3] <wing:0> in the rain"
OUTSIDE = "a photo of a partcraft-cub-background-001 partcraft-cub-head-003 partcraft-cub-wing-000 in the rain"
SAMPLING = SamplingOptions(steps=3, scheduler="model", guidance_scale=2.0, guidance_rescale=0.5)
LOAD_BASE = f"""
import torch
from diffusers import StableDiffusionPipeline
pipeline = StableDiffusionPipeline.from_pretrained({str(TINY / "base")!r}, torch_dtype=torch.float32)
"""
ALONE = """
import sys
sys.modules["partcraft_kedro"] = None
try:
    import partcraft_kedro.export
except ImportError:
    pass
else:
    raise AssertionError("this project can be imported")
from safetensors.torch import load_file, save_file
pictures = {{}}
for i, lines in enumerate({blocks!r}):
    exec(lines)
    pictures[str(i)] = pipeline(
        {prompt!r}, latents=load_file({noise!r})["noise"][None], num_inference_steps=3, guidance_scale=2.0,
        guidance_rescale=0.5, output_type="pt",
    ).images[0]
assert not any(name.startswith("partcraft_kedro.") for name in sys.modules)
save_file(pictures, {pictures!r})
"""


def draw_alone(folder: Path, *blocks: str, side: int = 64) -> list[torch.Tensor]:
    """What diffusers draws after each block of lines, of which the first makes a `pipeline`; folder: the working
    directory; side: of latents."""
    noise, pictures = (str(folder.parent / f"{name}.safetensors") for name in ("noise", "pictures"))
    save_file({"noise": torch.randn((4, side, side), generator=torch_generator(5, "picture", "one"))}, noise)
    script = ALONE.format(blocks=blocks, prompt=OUTSIDE, noise=noise, pictures=pictures)
    done = subprocess.run([sys.executable, "-I", "-c", script], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [picture for _, picture in sorted(load_file(pictures).items())]


def lines_of_card(folder: Path, base: Path = TINY / "base") -> str:
    """The lines that the model card shows, but for the last, which draws; with the base where it lies here."""
    card = (folder / "README.md").read_text()
    *lines, last = re.search(r"```python\n(.+?)\n```", card, re.DOTALL)[1].splitlines()
    assert re.fullmatch(r'pipeline\("a photo of a .+", .+\)\.images\[0\]\.save\("picture\.png"\)', last)
    placed = re.sub(r'from_pretrained\("[^"]+/base"', lambda _: f"from_pretrained({str(base)!r}", "\n".join(lines))
    assert str(base) in placed
    return placed


def draw_here(adapter: Path) -> torch.Tensor:
    model = PartCraft.load(adapter, "cpu", "float32")
    return sample_pictures(model, [PROMPT], ["one"], SAMPLING, 5, ["background", "head", "wing"])[0]


@pytest.fixture(scope="module")
def untrained(tmp_path_factory) -> torch.Tensor:
    """What the base draws of the prompt, in which it does not know the words."""
    return draw_alone(tmp_path_factory.mktemp("base"), LOAD_BASE)[0]


@pytest.mark.parametrize(
    ("unet", "layers", "alpha"),
    [("lora", "cross", 2), ("lora", "all", 6), ("lora", "cross", 0.5), ("frozen", "cross", 2), ("full", "cross", 2)],
)
def test_diffusers_alone_draws_the_same_picture(exported, make_adapter, base, words, untrained, unet, layers, alpha):
    adapter = make_adapter(unet, layers, alpha)
    write_export(exported, adapter, base, "partcraft-cub", words, "diffusers", SamplingOptions())
    [found], expected = draw_alone(exported, lines_of_card(exported)), draw_here(adapter.folder)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
    assert (expected - untrained).abs().mean() > 0.02


def test_lora_and_embeddings_both_count(make_adapter, untrained) -> None:
    """Else the test above could not see one of them go missing."""
    pictures = [draw_here(make_adapter("lora", "all", alpha).folder) for alpha in (2, 6)]
    pictures.append(draw_here(make_adapter("frozen").folder))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (pictures[one] - pictures[other]).abs().mean() > 0.01


@pytest.mark.parametrize(("layers", "alpha"), [("cross", 2), ("all", 6)])
def test_the_file_for_other_programs_draws_the_same_picture_too(exported, make_adapter, base, words, layers, alpha):
    adapter = make_adapter("lora", layers, alpha)
    write_export(exported, adapter, base, "partcraft-cub", words, "webui", SamplingOptions())
    assert not (exported / "pytorch_lora_weights.safetensors").exists()
    lines = f"""{LOAD_BASE}
from pathlib import Path
pipeline.load_lora_weights("lora/partcraft-cub.safetensors")
files = sorted(Path(".").glob("embeddings/*/*.safetensors"))
pipeline.load_textual_inversion(files, token=[file.stem for file in files])
"""
    torch.testing.assert_close(draw_alone(exported, lines)[0], draw_here(adapter.folder), atol=1e-3, rtol=0)


def test_diffusers_alone_draws_the_same_picture_with_sdxl(exported, adapter_xl, small_xl, base_xl, words) -> None:
    """By its own LoRA, and by kohya's file, whose names it reads by rules of its own; not so if it looks for the end of
    a prompt as SDXL's settings say."""
    write_export(exported, adapter_xl, base_xl, "partcraft-cub", words, "all", SamplingOptions())
    other_file = 'pipeline.unload_lora_weights(); pipeline.load_lora_weights("lora/partcraft-cub.safetensors")'
    blocks = (
        lines_of_card(exported, small_xl),
        other_file,
        "pipeline.unload_lora_weights()",
        f"{other_file}; pipeline.text_encoder_2.text_model.eos_token_id = 2",
    )
    expected = draw_here(adapter_xl.folder)
    card, kohya, *others = draw_alone(exported, *blocks, side=16)
    torch.testing.assert_close(card, expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(kohya, expected, atol=1e-3, rtol=0)
    assert min((other - expected).abs().max() for other in others) > 0.01
