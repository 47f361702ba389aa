"""Part tokens in the place of words: in the tokenizer, and in the frozen text encoder's input."""

import torch
from transformers import CLIPTextModel, CLIPTokenizer

from partcraft_kedro.errors import UserError
from partcraft_kedro.model.part_encoder import PartEncoder
from partcraft_kedro.prompts import PartToken


class PartPrompts:
    """Tokenizes prompts with part tokens and encodes them with a frozen CLIP text encoder.

    Adds `[m,k]` for every part and variant to the tokenizer, and hooks the text encoder's token embedding: rows
    of part tokens are replaced by the part encoder's output, through which gradients flow.
    """

    def __init__(self, tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, part_encoder: PartEncoder):
        self.tokenizer = tokenizer
        self.text_encoder = text_encoder
        self.part_encoder = part_encoder
        self._first = len(tokenizer)
        pairs = [(m, k) for m in range(part_encoder.part_count + 1) for k in range(part_encoder.variant_count)]
        tokenizer.add_tokens([str(PartToken(m, k)) for m, k in pairs])
        embedding = text_encoder.get_input_embeddings()
        embedding.register_forward_pre_hook(self._hide_part_tokens)
        embedding.register_forward_hook(self._inject)

    def _hide_part_tokens(self, _: torch.nn.Module, arguments: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        self._ids = arguments[0]
        return (self._ids.where(self._ids < self._first, 0),)

    def _inject(self, _: torch.nn.Module, __: tuple, words: torch.Tensor) -> torch.Tensor:
        is_part = self._ids >= self._first
        parts = self.part_encoder((self._ids - self._first).clamp(min=0))
        return torch.where(is_part[..., None], parts.to(words.dtype), words)

    def tokenize(self, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids (n, length) and each part's position in its prompt (n, M+1), -1 where it has no token.

        Raises UserError if a prompt is longer than the text encoder reads.
        """
        length = self.tokenizer.model_max_length
        rows = self.tokenizer(prompts, padding="max_length", max_length=length).input_ids
        longest, prompt = max(zip(map(len, rows), prompts, strict=True))
        if longest > length:
            raise UserError(f"The prompt {prompt!r} is longer than the {length} tokens that the text encoder reads.")
        ids = torch.tensor(rows)
        part = torch.div(ids - self._first, self.part_encoder.variant_count, rounding_mode="floor")
        part = part.where(ids >= self._first, -1)
        found = part[:, None, :] == torch.arange(self.part_encoder.part_count + 1)[None, :, None]
        return ids, torch.where(found.any(-1), found.int().argmax(-1), -1)

    def encode(self, ids: torch.Tensor) -> torch.Tensor:
        """Token ids (n, length) → the text encoder's last hidden state (n, length, width)."""
        return self.text_encoder(ids.to(self.text_encoder.device)).last_hidden_state
