"""The benchmark runner: `python -m benchmarks.run NAME`. PROTOCOL.md says how it times and how to read its table."""
