"""Networks for sequences and tables; those for images are in `tilewright.vision.models`."""

from tilewright.models.autoencoder import *  # noqa: F403
from tilewright.models.bert import *  # noqa: F403
from tilewright.models.gan import *  # noqa: F403
from tilewright.models.gpt import *  # noqa: F403
from tilewright.models.perceptron import *  # noqa: F403
from tilewright.models.records import *  # noqa: F403
from tilewright.models.seq2seq import *  # noqa: F403
from tilewright.models.transformer import *  # noqa: F403
from tilewright.models.word2vec import *  # noqa: F403
