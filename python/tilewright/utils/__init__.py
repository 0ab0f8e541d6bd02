"""Tools round the engine: `utils.data` feeds batches to a training loop."""
