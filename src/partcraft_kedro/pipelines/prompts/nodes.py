"""Codes to prompts."""

import pandas as pd

from partcraft_kedro.prompts import compose_prompt


def build_prompts(records: pd.DataFrame, codes: pd.DataFrame) -> pd.DataFrame:
    """Each picture's code and its prompt (Eq. 3), in the order of the records."""
    table = records[["id", "class_name", "split"]].merge(codes[["id", "code"]], on="id", validate="one_to_one")
    return table.assign(prompt=[compose_prompt(code) for code in table["code"]])
