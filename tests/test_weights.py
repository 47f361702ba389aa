import json

import pytest

from partcraft_kedro.devices import refuse_one_of_several, resolve_device, visible_gpus
from partcraft_kedro.errors import UserError
from partcraft_kedro.weights import TINY, adapter_fingerprint, is_hub_id, is_hub_name, model_fingerprint, resolve_model


@pytest.fixture
def filled(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("[]")
    (folder / "model.safetensors").write_bytes(b"1234")
    return folder


def test_models_are_found_in_the_package_in_folders_and_on_hubs(filled):
    assert resolve_model("tiny", "base", "base.model") == str(TINY / "base")
    assert resolve_model(str(filled), "base", "base.model") == str(filled)
    assert resolve_model("owner/model", "base", "base.model") == "owner/model"


def test_a_folder_of_the_same_name_comes_before_a_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_hub_id("owner/model")
    (tmp_path / "owner/model").mkdir(parents=True)
    assert is_hub_name("owner/model") and not is_hub_id("owner/model")


@pytest.mark.parametrize("name", ["nowhere", "./model", "../model", "/nowhere", "~/model", "a/b/c", "my models/one"])
def test_an_unknown_model_is_refused_with_the_option_s_name(name):
    with pytest.raises(UserError, match=r"base\.model="):
        resolve_model(name, "base", "base.model")


def test_a_file_is_a_model_of_text_to_image_alone(filled):
    file = filled / "model.safetensors"
    with pytest.raises(UserError, match=r"^features\.model='.*' is a file: give the folder of a model"):
        resolve_model(str(file), "feature_extractor", "features.model")


def test_a_local_model_s_key_follows_its_files(filled):
    before = model_fingerprint(str(filled), "base", "base.model")
    assert model_fingerprint(str(filled.rename(filled.with_name("other"))), "base", "base.model") == before
    filled.with_name("other").rename(filled)
    for name in ("config.json", "model.safetensors"):
        content = (filled / name).read_bytes()
        (filled / name).write_bytes(b"{}")
        assert model_fingerprint(str(filled), "base", "base.model") != before
        (filled / name).write_bytes(content)
    assert model_fingerprint(str(filled), "base", "base.model") == before
    assert model_fingerprint("owner/model", "base", "base.model") == "owner/model"


@pytest.mark.parametrize(
    "name", ["README.md", "pytorch_model.bin", "v1-5.ckpt", "model.fp16.safetensors", ".git/config", ".cache/x.json"]
)
def test_what_is_not_loaded_is_not_in_a_model_s_key(filled, name):
    before = model_fingerprint(str(filled), "base", "base.model")
    (filled / name).parent.mkdir(exist_ok=True)
    (filled / name).write_text("1")
    assert model_fingerprint(str(filled), "base", "base.model") == before


@pytest.mark.parametrize("name", ["v1-5-pruned.safetensors", "safety_checker/model.safetensors", "README.md"])
def test_of_a_pipeline_the_loaded_networks_are_in_its_key(filled, name):
    (filled / "model_index.json").write_text("{}")
    (filled / "unet").mkdir()
    before = model_fingerprint(str(filled), "base", "base.model")
    (filled / name).parent.mkdir(exist_ok=True)
    (filled / name).write_text("1")
    assert model_fingerprint(str(filled), "base", "base.model") == before
    (filled / "unet" / "diffusion_pytorch_model.safetensors").write_text("1")
    assert model_fingerprint(str(filled), "base", "base.model") != before


@pytest.mark.parametrize("device", ["nowhere", "cuda:99", "cuda:", "cuda:x", "cpu:1", "cuda:-1"])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(UserError, match=rf"^base\.device='{device}' is not available on this machine, .*cpu"):
        resolve_device(device)


def test_devices_that_are_there():
    assert resolve_device("cpu") == "cpu"
    assert resolve_device(resolve_device("auto")) == resolve_device("auto")


def test_an_adapter_is_told_by_what_it_draws_with(create_tiny, carry_parts, tmp_path):
    """Not by the names of its parts, nor by where its base model lay."""
    folder = tmp_path / "adapter"
    create_tiny().save_adapter(folder, {"steps": 3})
    known = adapter_fingerprint(folder)
    carry_parts(folder, ["background", "head", "wing"])
    settings = json.loads((folder / "adapter.json").read_text())
    (folder / "adapter.json").write_text(json.dumps(settings | {"base": "/elsewhere/tiny"}))
    assert adapter_fingerprint(folder) == known
    (folder / "adapter.json").write_text(json.dumps(settings | {"training": {"steps": 4}}))
    assert adapter_fingerprint(folder) != known
    (folder / "adapter.json").write_text(json.dumps(settings))
    weights = folder / "part_tokens.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    assert adapter_fingerprint(folder) != known


def test_gpus_are_those_that_the_user_lets_be_seen(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    assert visible_gpus() == ["0", "3"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus() == ["0", "1"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert visible_gpus() == []


def test_one_gpu_of_several_is_refused_where_processes_have_one_each():
    refuse_one_of_several("cuda", "workers")
    with pytest.raises(UserError, match=r"^base\.device='cuda:0' is one GPU of several, and workers have one each"):
        refuse_one_of_several("cuda:0", "workers")
