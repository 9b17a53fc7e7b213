"""VGG with batch norm for small images (Simonyan and Zisserman, 2015), as in RepDistiller."""

from torch import Tensor, nn
from torch.nn import functional

from kd3_pipeline.models.network import Network
from kd3_pipeline.models.resnet import initialise

LAYERS = {
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


class VGG(Network):
    """VGG-`depth` with one linear layer; feature map [B, 512, S/8, S/8], or S/16 for S ≥ 64."""

    classifier_name = "classifier"

    def __init__(self, num_classes: int, depth: int) -> None:
        super().__init__()
        layers = LAYERS[depth]
        self.block0 = _block(3, 64, layers[0])
        self.block1 = _block(64, 128, layers[1])
        self.block2 = _block(128, 256, layers[2])
        self.block3 = _block(256, 512, layers[3])
        self.block4 = _block(512, 512, layers[4])
        setattr(self, self.classifier_name, nn.Linear(512, num_classes))
        self.feature_channels = 512
        initialise(self)

    def features(self, images: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.block0(images)), 2)
        x = functional.max_pool2d(functional.relu(self.block1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.block2(x)), 2)
        x = functional.relu(self.block3(x))
        if images.shape[-1] >= 64:
            x = functional.max_pool2d(x, 2)
        return functional.relu(self.block4(x))


def _block(inputs: int, outputs: int, layers: int) -> nn.Sequential:
    """The last ReLU is left to the network: the published keys count without it."""
    modules: list[nn.Module] = []
    for layer in range(layers):
        convolution = nn.Conv2d(inputs if layer == 0 else outputs, outputs, 3, padding=1)
        modules += [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*modules[:-1])
