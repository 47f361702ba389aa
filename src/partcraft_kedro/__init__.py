import os

# Else transformers tells in every run that torchvision, which nothing here needs, is not installed.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
