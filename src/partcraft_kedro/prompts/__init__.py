"""Codes to part tokens to prompts, and back."""

from partcraft_kedro.prompts.tokens import (
    TEMPLATES,
    PartToken,
    compose_prompt,
    find_tokens,
    parse_tokens,
    tokens_of,
)

__all__ = ["TEMPLATES", "PartToken", "compose_prompt", "find_tokens", "parse_tokens", "tokens_of"]
