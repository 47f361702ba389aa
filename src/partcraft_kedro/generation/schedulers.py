"""The schedulers that one can choose (`generate.sampling.scheduler`), as other programs know them.

`model`, the one that the base model comes with, has no entry.
"""

# `algorithm_type` of diffusers' DPMSolverMultistepScheduler: DPM-Solver++(2M), SDE-DPM-Solver++(2M) of Lu et al. 2022
# (arXiv:2211.01095).
ALGORITHMS = {"dpm-solver++": "dpmsolver++", "sde-dpm-solver++": "sde-dpmsolver++"}

# Samplers of AUTOMATIC1111, Forge and ComfyUI.
SAMPLERS = {"dpm-solver++": "DPM++ 2M", "sde-dpm-solver++": "DPM++ 2M SDE"}
