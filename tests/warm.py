"""Imported once by the process that `forked.start` forks from: what a run would import late, and pytest."""

import pytest  # noqa: F401
import sklearn.model_selection  # noqa: F401
import torch._dynamo  # noqa: F401

from text_utils import load_ftfy, load_rules

load_ftfy()
load_rules()
