"""From an adapter to what other programs read: diffusers alone, AUTOMATIC1111, Forge, ComfyUI, a hub."""
