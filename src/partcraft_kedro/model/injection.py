"""Part tokens in the place of words: in the tokenizers, and in the frozen text encoders' inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from partcraft_kedro.errors import UserError
from partcraft_kedro.model.base import Base, picture_size, text_encoders, tokenizers
from partcraft_kedro.model.part_encoder import PartEncoder
from partcraft_kedro.prompts import TEMPLATES, PartPrompt, PartToken


@dataclass(frozen=True)
class Conditioning:
    """What a U-Net is told. words: (n, length, width); pooled: (n, width) of the whole prompt, and sizes, (n, 6): those
    of the original, its crop's corner, and those asked for, in pixels; None where the U-Net takes none."""

    words: torch.Tensor
    pooled: torch.Tensor | None = None
    sizes: torch.Tensor | None = None

    def arguments(self) -> dict[str, Any]:
        """For a U-Net's forward pass."""
        if self.pooled is None:
            return {"encoder_hidden_states": self.words}
        further = {"text_embeds": self.pooled, "time_ids": self.sizes}
        return {"encoder_hidden_states": self.words, "added_cond_kwargs": further}


class PartPrompts:
    """Tokenizes prompts with part tokens and encodes them with a base model's frozen text encoders.

    Adds `[m,k]` for every part and variant to each tokenizer, and hooks each text encoder's token embedding: rows of
    part tokens are replaced by the part encoder's output, through which gradients flow.
    """

    def __init__(self, pipeline: Base, part_encoder: PartEncoder):
        self.part_encoder = part_encoder
        self.tokenizers, self.text_encoders = tokenizers(pipeline), text_encoders(pipeline)
        side = picture_size(pipeline)
        # Here, as from the CPU it would have to wait for a GPU's last step.
        self._sizes = torch.tensor([side, side, 0, 0, side, side], device=pipeline.device)
        self._first = len(self.tokenizers[0])
        pairs = [(m, k) for m in range(part_encoder.part_count + 1) for k in range(part_encoder.variant_count)]
        for tokenizer in self.tokenizers:
            tokenizer.add_tokens([str(PartToken(m, k)) for m, k in pairs])
        words = [template.format("") for template in TEMPLATES]
        self._templates = [
            dict(zip(TEMPLATES, tokenizer(words).input_ids, strict=True)) for tokenizer in self.tokenizers
        ]
        for number, text_encoder in enumerate(self.text_encoders):
            embedding = text_encoder.get_input_embeddings()
            embedding.register_forward_pre_hook(self._hide_part_tokens)
            embedding.register_forward_hook(partial(self._inject, number))
            if len(self.text_encoders) > 1:
                # What `encode` reads. transformers hands it out too, by hooks of its own that cannot be compiled.
                *_, last_but_one, _ = (part for part in text_encoder.modules() if isinstance(part, CLIPEncoderLayer))
                last_but_one.register_forward_hook(partial(self._keep, number))
        self._kept: dict[int, torch.Tensor] = {}

    def _hide_part_tokens(self, _: torch.nn.Module, arguments: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        self._ids = arguments[0]
        return (self._ids.where(self._ids < self._first, 0),)

    def _inject(self, number: int, _: torch.nn.Module, __: tuple, words: torch.Tensor) -> torch.Tensor:
        is_part = self._ids >= self._first
        parts = self.part_encoder((self._ids - self._first).clamp(min=0))[number]
        return torch.where(is_part[..., None], parts.to(words.dtype), words)

    def _keep(self, number: int, _: torch.nn.Module, __: tuple, states: torch.Tensor) -> None:
        self._kept[number] = states

    def tokenize(self, prompts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids (n, text encoders, length) and each part's position in its prompt (n, M+1), -1 where it has none.

        Raises UserError if a prompt is longer than the text encoders read.
        """
        length = self.tokenizers[0].model_max_length
        of_tokenizers = [
            tokenizer(list(prompts), padding="max_length", max_length=length).input_ids for tokenizer in self.tokenizers
        ]
        return self._checked(of_tokenizers, prompts)

    def place(self, prompts: Sequence[PartPrompt]) -> tuple[torch.Tensor, torch.Tensor]:
        """As `tokenize`, without the tokenizers: of templates, in which tokens come last, they were asked once.

        So another thread may use them meanwhile, which they bear from one alone.
        """
        length = self.tokenizers[0].model_max_length
        of_tokenizers = []
        for tokenizer, templates in zip(self.tokenizers, self._templates, strict=True):
            rows = []
            for template, tokens in prompts:
                *words, end = templates[template]
                parts = [self._first + part * self.part_encoder.variant_count + variant for part, variant in tokens]
                row = [*words, *parts, end]
                rows.append(row + [tokenizer.pad_token_id] * (length - len(row)))
            of_tokenizers.append(rows)
        return self._checked(of_tokenizers, prompts)

    def _checked(
        self, of_tokenizers: list[list[list[int]]], prompts: Sequence[object]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids of each tokenizer and prompt as `tokenize` gives them."""
        length = self.tokenizers[0].model_max_length
        longest, prompt = max(zip(map(len, of_tokenizers[0]), map(str, prompts), strict=True))
        if longest > length:
            raise UserError(f"The prompt {prompt!r} is longer than the {length} tokens that the text encoder reads.")
        ids = torch.tensor(of_tokenizers).transpose(0, 1)
        part = torch.div(ids[:, 0] - self._first, self.part_encoder.variant_count, rounding_mode="floor")
        part = part.where(ids[:, 0] >= self._first, -1)
        found = part[:, None, :] == torch.arange(self.part_encoder.part_count + 1)[None, :, None]
        return ids, torch.where(found.any(-1), found.int().argmax(-1), -1)

    def encode(self, ids: torch.Tensor) -> Conditioning:
        """Token ids as `tokenize` gives them to what the U-Net is told of each prompt."""
        of_encoders = ids.to(self.text_encoders[0].device).unbind(1)
        if len(self.text_encoders) == 1:
            return Conditioning(self.text_encoders[0](of_encoders[0]).last_hidden_state)
        # As SDXL reads (Podell et al. 2023, arXiv:2307.01952, section 2.1): the hidden states before the last layer,
        # side by side; and the second one's summary of the whole, which lies at the first end of text. transformers
        # would look for it at the largest id, which here is a part token's.
        read = [encoder(of_encoder) for encoder, of_encoder in zip(self.text_encoders, of_encoders, strict=True)]
        words = torch.cat([self._kept.pop(number) for number in range(len(read))], dim=-1)
        ends = (of_encoders[1] == self.tokenizers[1].eos_token_id).int().argmax(-1)
        summary = read[1].last_hidden_state[torch.arange(len(ids), device=ends.device), ends]
        summary = self.text_encoders[1].text_projection(summary)
        return Conditioning(words, summary, self._sizes.expand(len(ids), -1))
