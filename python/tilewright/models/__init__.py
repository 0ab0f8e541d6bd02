"""Networks for sequences and tables; those for images are in `tilewright.vision.models`."""

from tilewright.models.bert import *  # noqa: F403
from tilewright.models.gpt import *  # noqa: F403
