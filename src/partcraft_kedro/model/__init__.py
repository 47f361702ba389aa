"""Part encoder, text injection, attention capture, losses, and loading a base model."""
