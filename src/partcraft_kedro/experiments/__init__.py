"""Sweeps summed up over seeds, beside the paper's numbers: tables, figures, one page to read."""
