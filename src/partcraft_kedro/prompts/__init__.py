"""Codes to part tokens to prompts, and back."""

from partcraft_kedro.prompts.tokens import (
    TEMPLATES,
    PartPrompt,
    PartToken,
    compose_prompt,
    draw_prompt,
    find_tokens,
    join_prompt,
    parse_tokens,
    split_prompt,
    tokens_of,
)

__all__ = [
    "TEMPLATES",
    "PartPrompt",
    "PartToken",
    "compose_prompt",
    "draw_prompt",
    "find_tokens",
    "join_prompt",
    "parse_tokens",
    "split_prompt",
    "tokens_of",
]
