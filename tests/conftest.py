"""Shared fixtures: a tiny but whole generator, and one thread so that numbers repeat."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
