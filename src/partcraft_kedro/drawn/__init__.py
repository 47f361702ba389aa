"""Drawn worlds: pictures whose every part and attribute is known, a judge of them, and the truth of compositions."""
