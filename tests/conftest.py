"""Shared by all tests."""

import os

# No test talks to a network or leaves a trace outside its own folder.
os.environ["DO_NOT_TRACK"] = "true"
os.environ["HF_HUB_OFFLINE"] = "1"
