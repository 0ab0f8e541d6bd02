"""Classifying nets, transfer learning, what a net sees, segmentation, detection."""

from __future__ import annotations

from systems import System

SYSTEMS: list[System] = []
