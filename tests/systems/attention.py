"""Word vectors, Transformer, BERT, GPT, vision transformer."""

from __future__ import annotations

from systems import System

SYSTEMS: list[System] = []
