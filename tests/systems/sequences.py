"""Recurrent nets, sequence to sequence, captions, reports, records over time."""

from __future__ import annotations

from systems import System

SYSTEMS: list[System] = []
