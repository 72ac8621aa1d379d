"""Modules that a run imports late, and pytest. The process from which `forked.start` forks imports them once."""

import pytest  # noqa: F401
import sklearn.model_selection  # noqa: F401
import torch._dynamo  # noqa: F401

from text_utils import load_ftfy, load_rules

load_ftfy()
load_rules()
