"""Making creatures from parts: palettes of variants, a studio that draws, a history, and a page to do it on."""
