"""`SummaryWriter` for TensorBoard, through the package tensorboardX, which writes the files.

    writer = SummaryWriter("runs/first")
    writer.add_scalar("loss", loss, step)
"""

from __future__ import annotations

import importlib
from typing import Any

from tilewright.tensor import Tensor

__all__ = ["SummaryWriter"]


def _plain(value: Any) -> Any:
    """Tensors as numbers and NumPy arrays, in lists and dicts too."""
    if isinstance(value, Tensor):
        return value.item() if not value.dim() else value.numpy(force=True)
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value


class SummaryWriter:
    """tensorboardX's SummaryWriter, whose methods take tensors: add_scalar, add_scalars, add_histogram, add_image,
    add_images, add_figure, add_text, add_embedding, add_hparams, flush, close.

    Raises:
        ImportError: tensorboardX is not installed. NotImplementedError: add_graph; models are not traced.
    """

    def __init__(self, log_dir: str | None = None, comment: str = "", purge_step: int | None = None,
                 max_queue: int = 10, flush_secs: int = 120, filename_suffix: str = "") -> None:
        try:
            package = importlib.import_module("tensorboardX")
        except ImportError:
            raise ImportError("SummaryWriter: writing TensorBoard's files needs tensorboardX; pip install "
                              "tensorboardX") from None
        self._writer = package.SummaryWriter(log_dir, comment, purge_step=purge_step, max_queue=max_queue,
                                             flush_secs=flush_secs, filename_suffix=filename_suffix)

    def add_graph(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("add_graph: models are not traced to graphs; use add_text(\"model\", str(model))")

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._writer, name)
        if not callable(found):
            return found
        return lambda *args, **kwargs: found(*map(_plain, args), **{k: _plain(v) for k, v in kwargs.items()})

    def __enter__(self) -> SummaryWriter:
        return self

    def __exit__(self, *exc: Any) -> None:
        self._writer.close()
