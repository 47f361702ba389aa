"""How `tiny`, the embedded base model, is made: everything that the package ships is built here."""
