import numpy as np
import pytest
import torch

from partcraft_kedro.errors import UserError
from partcraft_kedro.model.base import load_base
from partcraft_kedro.model.injection import PartPrompts
from partcraft_kedro.model.part_encoder import PartEncoder
from partcraft_kedro.prompts import TEMPLATES, PartPrompt, PartToken, draw_prompt

PARTS, VARIANTS = 2, 12
PROMPT = "a photo of a [2,11] bird [0,1] on sand"


@pytest.fixture
def prompts():
    torch.manual_seed(0)
    pipeline = load_base("tiny", "cpu")
    width = pipeline.text_encoder.config.hidden_size
    return PartPrompts(pipeline, PartEncoder(PARTS, VARIANTS, [width], layers=2, scales=[1.0]))


@pytest.fixture
def embedding(prompts):
    return prompts.text_encoders[0].get_input_embeddings()


def test_each_part_s_position_is_known(prompts):
    ids, columns = prompts.tokenize([PROMPT, "a photo of a [1,0]", "a bird"])
    assert ids.shape == (3, 1, prompts.tokenizers[0].model_max_length)
    # Start of text, then five words to the first token.
    assert columns.tolist() == [[7, -1, 5], [-1, 5, -1], [-1, -1, -1]]
    assert prompts.tokenizers[0].convert_ids_to_tokens(ids[0, 0, [5, 7]]) == ["[2,11]", "[0,1]"]


def test_every_token_is_one_id_and_has_its_own_row(prompts, embedding):
    texts = [f"[{m},{k}]" for m in range(PARTS + 1) for k in range(VARIANTS)]
    ids, columns = prompts.tokenize(texts)
    assert columns.max(1).values.tolist() == [1] * len(texts)
    torch.testing.assert_close(embedding(ids[:, 0])[:, 1], *prompts.part_encoder.all_embeddings())


def test_part_tokens_are_replaced_and_words_are_not(prompts, embedding):
    ids = prompts.tokenize([PROMPT, "a bird on sand"])[0][:, 0]
    embedded = embedding(ids)
    [replaced] = prompts.part_encoder(torch.tensor([2 * VARIANTS + 11, 1]))
    torch.testing.assert_close(embedded[0, [5, 7]], replaced)
    words = torch.ones_like(ids, dtype=torch.bool)
    words[0, [5, 7]] = False
    assert torch.equal(embedded[words], embedding.weight[ids[words]])


def test_the_encoder_reads_what_was_injected(prompts):
    """Before a part token nothing changes with it (CLIP's attention is causal), from there on everything does."""
    one, other = (prompts.encode(prompts.tokenize([text])[0]).words for text in (PROMPT, PROMPT.replace("2,11", "2,3")))
    changed = (one != other).any(-1)[0].tolist()
    assert changed == [False] * 5 + [True] * (len(changed) - 5)


def test_a_prompt_of_words_is_encoded_as_without_part_tokens(prompts):
    ids, _ = prompts.tokenize(["a photo of a red bird"])
    plain = load_base("tiny", "cpu").text_encoder
    assert torch.equal(prompts.encode(ids).words, plain(ids[:, 0]).last_hidden_state)


def test_gradients_reach_the_rows_of_the_tokens_and_no_others(prompts):
    ids, columns = prompts.tokenize([PROMPT])
    prompts.encode(ids).words[0, columns.max() :].square().sum().backward()
    table = prompts.part_encoder.variants.weight.grad
    assert table.isfinite().all()
    assert table.any(-1).nonzero().flatten().tolist() == [1, 2 * VARIANTS + 11]
    assert all(weight.grad.any() for weight in prompts.part_encoder.bottleneck.parameters())


def test_a_prompt_that_is_too_long_is_refused_by_name(prompts):
    room = prompts.tokenizers[0].model_max_length - 2  # start and end of text
    fits = " ".join(["spotted"] * room)
    too_long = " ".join(["x"] * (room + 1))  # fewer letters, more tokens
    prompts.tokenize([fits])
    with pytest.raises(UserError, match=f"{too_long!r} is longer than the {room + 2} tokens"):
        prompts.tokenize([fits, too_long])


def test_tokens_placed_in_templates_are_as_the_tokenizer_reads_them(prompts):
    rng = np.random.default_rng(0)
    drawn = [PartPrompt(template, [PartToken(2, 11), PartToken(0, 1)]) for template in TEMPLATES]
    drawn += [PartPrompt(TEMPLATES[0], []), *(draw_prompt(rng.integers(-1, 12, 3), rng, 0.5) for _ in range(50))]
    for found, expected in zip(prompts.place(drawn), prompts.tokenize([str(prompt) for prompt in drawn]), strict=True):
        assert torch.equal(found, expected)


def test_a_prompt_of_too_many_parts_is_refused_by_name(prompts):
    room = prompts.tokenizers[0].model_max_length - 6  # start and end of text, `a photo of a`
    prompts.place([PartPrompt(TEMPLATES[0], [PartToken(1, 0)] * room)])
    with pytest.raises(UserError, match=r"'a photo of a \[1,0\] .* is longer than the"):
        prompts.place([PartPrompt(TEMPLATES[0], [PartToken(1, 0)] * (room + 1))])
