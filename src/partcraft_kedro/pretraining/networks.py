"""tiny's text encoder, U-Net and schedule."""

import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from partcraft_kedro.drawn.worlds import COLOURS, LABELS, PLACES, STYLES
from partcraft_kedro.pretraining.tokenizer import CONTEXT

WIDTH = 128  # of the text encoder
_GROUPS = (len(LABELS), len(PLACES), len(STYLES), len(COLOURS))


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Two CLIP layers of width 128, with token embeddings of standard deviation 1."""
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT,
            projection_dim=WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    nn.init.normal_(text_encoder.get_input_embeddings().weight, std=1.0)
    return text_encoder


def build_unet() -> UNet2DConditionModel:
    """64×64 latents; attention at 16×16 only, so that the paper's five layers carry their Stable Diffusion names."""
    return UNet2DConditionModel(
        sample_size=64,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        block_out_channels=(24, 48, 96, 96),
        layers_per_block=(1, 1, 2, 1),
        norm_num_groups=8,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,  # the number of heads, in diffusers' naming
    )


def build_scheduler() -> DPMSolverMultistepScheduler:
    """DPM-Solver++ on Stable Diffusion's schedule with a final β two and a half times its own, ending in pure noise;
    v-prediction."""
    return DPMSolverMultistepScheduler(
        beta_start=0.00085,
        beta_end=0.03,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        steps_offset=1,
    )


class NounReader(nn.Module):
    """Reads off each noun's last hidden state what the caption says of it: logits of style and colour."""

    def __init__(self, text_encoder: CLIPTextModel):
        super().__init__()
        self.text_encoder = text_encoder
        self.looks = nn.Linear(WIDTH, len(STYLES) + len(COLOURS))

    def forward(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """states: (n, width) of nouns."""
        return self.looks(states).split((len(STYLES), len(COLOURS)), dim=-1)


class TextToImage(nn.Module):
    """What is trained: the text encoder, the U-Net, and a linear reading of the U-Net's 16×16 features."""

    def __init__(self, text_encoder: CLIPTextModel, unet: UNet2DConditionModel):
        super().__init__()
        self.text_encoder = text_encoder
        self.unet = unet
        self.reader = nn.Conv2d(unet.config.block_out_channels[2], sum(_GROUPS), 1)
        unet.up_blocks[1].attentions[-1].register_forward_hook(self._keep)

    def _keep(self, _: nn.Module, __: tuple, output: tuple[torch.Tensor]) -> None:
        self._features = output[0]

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return self.unet(noisy, timesteps, self.text_encoder(ids).last_hidden_state, return_dict=False)[0]

    def read(self) -> tuple[torch.Tensor, ...]:
        """What the last forward pass believes each location shows: log-probabilities (n, c, side, side) of label,
        place, style and colour."""
        return tuple(group.log_softmax(1) for group in self.reader(self._features.float()).split(_GROUPS, dim=1))
