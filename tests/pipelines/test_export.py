"""`kedro export` on what a run left behind."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.torch import load_file


def export(project, to: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """Exit code and the last line."""
    code, output = project.run("--to", str(to), *arguments, command="export", **environment)
    assert "Traceback" not in output
    return code, output.strip().splitlines()[-1]


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "exported"


def test_the_commonest_words_of_each_part_come_with_names_and_counts_of_training(finished, to) -> None:
    code, told = export(finished, to, "--tokens=common:2")
    assert code == 0, told
    assert told == f"Model card: {to}/README.md. To choose parts, open {to}/contact_sheet.html."
    names = yaml.safe_load((finished.data / "05_model_input/test/part_names.yml").read_text())
    prompts = pd.read_parquet(finished.data / "05_model_input/test/prompts.parquet")
    code_of = np.stack(prompts.loc[prompts["split"] == "train", "code"])
    (adapter,) = finished.data.glob("06_models/test/adapter/*/adapter")
    tokens = load_file(adapter / "part_tokens.safetensors")
    words = json.loads((to / "export.json").read_text())["words"]
    assert len(words) == 2 * len(names)
    for word in words:
        part, variant = json.loads(word["token"])
        assert word["part"] == names[part]
        assert word["word"] == f"partcraft-test-{names[part].replace(' ', '-')}-{variant:03d}"
        assert word["pictures"] == (code_of[:, part] == variant).sum() > 0
        (vector,) = load_file(to / f"embeddings/partcraft-test/{word['word']}.safetensors")["emb_params"]
        assert (vector == tokens[word["token"]]).all()
        assert (to / f"embeddings/partcraft-test/{word['word']}.preview.png").exists()


def test_an_adapter_is_chosen_by_version_or_folder_and_words_by_name(finished, to, tmp_path) -> None:
    (adapter,) = finished.data.glob("06_models/test/adapter/*/adapter")
    for asked in (adapter.parent.name, str(shutil.copytree(adapter, tmp_path / "elsewhere"))):
        code, told = export(finished, to, "--adapter", asked, "--tokens=head:1,[1,0]", "--format=diffusers")
        assert code == 0, told
        words = json.loads((to / "export.json").read_text())["words"]
        assert {word["part"] for word in words} >= {"head"} and len(words) in (1, 2)
        assert not (to / "lora").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--tokens=haed:1"], "Error: There is no part 'haed': did you mean 'head'?"),
        (["--adapter=2020"], "Error: There is no adapter version or folder '2020': "),
        (["--params=bsae.model=tiny"], "Error: There is no group of options 'bsae': did you mean 'base'?"),
        (["--push=birds"], "Error: Invalid value for '--push': 'birds' is not of the form owner/name"),
        (["--public"], "Error: --public says who sees what --push uploads: give both."),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(finished, to, arguments, told) -> None:
    code, line = export(finished, to, *arguments)
    assert code != 0 and line.startswith(told)
    assert not to.exists()


def test_a_folder_with_something_else_in_it_is_refused(finished, to) -> None:
    to.mkdir()
    (to / "mine.txt").write_text("mine")
    code, told = export(finished, to)
    assert code == 1 and told == (
        f"Error: --to={to} is not empty, and is no earlier export: give a new folder, or an empty one."
    )
    assert [path.name for path in to.iterdir()] == ["mine.txt"]


def test_what_cannot_be_uploaded_is_there_all_the_same(finished, to) -> None:
    """No test talks to a network: HF_HUB_OFFLINE is set."""
    code, told = export(finished, to, "--tokens=common:1", "--push=me/birds")
    assert code == 1 and told.startswith("Error: --push=me/birds failed (")
    assert told.endswith(f"run the same command again; the export itself is in {to}.")
    assert 'snapshot_download("me/birds")' in (to / "README.md").read_text()


def test_before_anything_is_trained_it_says_how(project, to) -> None:
    code, told = export(project, to)
    assert (code, told) == (1, "Error: There is no adapter yet: train one, kedro run --pipelines=train.")


def test_an_adapter_needs_no_pictures_beside_it(finished, project, to) -> None:
    """Where no run was, and so no parts either."""
    (adapter,) = finished.data.glob("06_models/test/adapter/*/adapter")
    code, told = export(project, to, "--adapter", str(adapter), "--tokens=head:1", "--format=diffusers")
    assert code == 0, told
    assert [word["part"] for word in json.loads((to / "export.json").read_text())["words"]] == ["head"]
    assert (to / "adapter/parts/parts.json").exists()
