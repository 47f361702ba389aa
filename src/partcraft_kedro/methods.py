"""The paper's method, its rivals and its ablations: presets of one trainer.

Each is what it is by a few options of `train`; docs/methods.md tells how each was adapted to part tokens, and from
where. All learn one token for every part variant from the same pictures and codes, and differ in what else learns,
through which loss. Rates of the U-Net's own weights are those of the methods' authors relative to that of the tokens.
"""

_PARTCRAFT = {
    "bottleneck_layers": 2,
    "unet": "lora",
    "unet_learning_rate_factor": 1.0,
    "attention_weight": 0.01,
    "attention_loss": "cross_entropy",
    "attention_normalisation": "parts",
    "masked_loss": False,
    "union_sampling": False,
}
_TOKENS_ALONE = _PARTCRAFT | {"bottleneck_layers": 0, "attention_weight": 0.0}
_BREAK_A_SCENE_ATTENTION = {"attention_loss": "squared_error", "attention_normalisation": "maximum"}

METHODS: dict[str, dict] = {
    # The paper's section 3.
    "partcraft": _PARTCRAFT,
    # Gal et al. 2023 (arXiv:2208.01618): a word embedding for each token, and nothing else.
    "textual_inversion": _TOKENS_ALONE | {"unet": "frozen"},
    # Ruiz et al. 2023 (arXiv:2208.12242): the whole U-Net.
    "dreambooth": _TOKENS_ALONE | {"unet": "full", "unet_learning_rate_factor": 0.05},
    # Kumari et al. 2023 (arXiv:2212.04488): keys and values of cross-attention.
    "custom_diffusion": _TOKENS_ALONE | {"unet": "key_value", "unet_learning_rate_factor": 0.8},
    # Avrahami et al. 2023 (arXiv:2305.16311): DreamBooth, on masked losses of random unions of parts.
    "break_a_scene": _TOKENS_ALONE
    | _BREAK_A_SCENE_ATTENTION
    | {
        "unet": "full",
        "unet_learning_rate_factor": 0.05,
        "attention_weight": 0.01,
        "masked_loss": True,
        "union_sampling": True,
    },
    # The paper's ablations.
    "no_bottleneck": _PARTCRAFT | {"bottleneck_layers": 0},
    "mse_attention": _PARTCRAFT | _BREAK_A_SCENE_ATTENTION,
    "no_attention_loss": _PARTCRAFT | {"attention_weight": 0.0},
}
