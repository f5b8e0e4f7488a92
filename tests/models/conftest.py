"""One thread: the tests are small."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
