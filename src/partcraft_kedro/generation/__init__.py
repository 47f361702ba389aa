"""Composing codes and sampling pictures."""
