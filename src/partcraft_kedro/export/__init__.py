"""From an adapter to what other programs read: diffusers alone, AUTOMATIC1111, Forge, ComfyUI, a hub."""

FORMATS = ("all", "diffusers", "webui")
"""`webui`: AUTOMATIC1111, Forge and ComfyUI."""

ADAPTER = "adapter"
"""The folder of an export that holds the adapter itself, for this project."""
