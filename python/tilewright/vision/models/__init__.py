"""Networks for images, with torchvision's names, signatures and state-dict keys; weights come from local files only."""

from tilewright.vision.models.alexnet import *  # noqa: F403
from tilewright.vision.models.densenet import *  # noqa: F403
from tilewright.vision.models.detection import *  # noqa: F403
from tilewright.vision.models.fcn import *  # noqa: F403
from tilewright.vision.models.inception import *  # noqa: F403
from tilewright.vision.models.lenet import *  # noqa: F403
from tilewright.vision.models.mobilenet import *  # noqa: F403
from tilewright.vision.models.resnet import *  # noqa: F403
from tilewright.vision.models.unet import *  # noqa: F403
from tilewright.vision.models.vgg import *  # noqa: F403
from tilewright.vision.models.vision_transformer import *  # noqa: F403
