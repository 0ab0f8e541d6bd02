"""Autoencoders, anomaly detection, variational autoencoder, generative adversarial nets."""

from __future__ import annotations

from systems import System

SYSTEMS: list[System] = []
