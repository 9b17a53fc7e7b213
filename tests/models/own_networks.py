"""Source of five usual networks of one's own, and of some odd ones, as text files of a user."""

HEADER = """
import torch
from torch import nn
from torch.nn import functional as F
"""

TUTORIAL = """
class Net(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 24)
        self.fc2 = nn.Linear(24, 12)
        self.fc3 = nn.Linear(12, num_classes)

    def forward(self, x):
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)
"""

BACKBONE = """
class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.stage = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())

    def forward(self, x):
        return self.stage(self.stem(x)).mean(dim=(2, 3))


class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.backbone = Backbone()
        self.head = nn.Linear(16, num_classes)

    def forward(self, x):
        return self.head(self.backbone(x))
"""

MLP = """
class Net(nn.Module):
    def __init__(self, num_classes, width=16):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, width, 3, 2, 1)
        )
        self.head = nn.Sequential(
            nn.Linear(width, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.3),
            nn.Linear(12, num_classes),
        )

    def forward(self, x):
        x = F.adaptive_avg_pool2d(F.relu(self.body(x)), 1)
        return self.head(x.flatten(1))
"""

VIEW = """
class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(),
        )
        self.fc = nn.Linear(16 * 8 * 8, num_classes)

    def forward(self, x):
        batch = x.size(0)
        x = self.net(x)
        x = x.view(batch, -1)
        return self.fc(F.dropout(x, 0.5, self.training))
"""

ZERO_PADDED = """
class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.more = stride, outputs - inputs

    def forward(self, x):
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.more:
            half = self.more // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.more - half))
        return F.relu(out + x)


class Net(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layer1 = Block(8, 8, 1)
        self.layer2 = Block(8, 16, 2)
        self.layer3 = Block(16, 32, 2)
        self.linear = nn.Linear(32, num_classes)

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        out = F.avg_pool2d(out, out.size()[3])
        out = out.view(out.size(0), -1)
        return self.linear(out)
"""

# asks for a size before anything else, so that its forward pass cannot be recorded from the start
ASKING = """
class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, num_classes)

    def forward(self, x):
        if x.shape[-1] < 8:
            raise ValueError("images of 8 pixels or more")
        x = F.relu(self.norm(self.conv(x)))
        return self.fc(F.dropout(x.mean((2, 3)), 0.5, self.training))
"""

SHAPES = {
    "tutorial": TUTORIAL,
    "backbone": BACKBONE,
    "mlp": MLP,
    "view": VIEW,
    "zero_padded": ZERO_PADDED,
    "asking": ASKING,
}
CUTS = {
    "tutorial": ("vector", (12,)),
    "backbone": ("map", (16, 8, 8)),
    "mlp": ("map", (16, 8, 8)),
    "view": ("vector", (1024,)),
    "zero_padded": ("map", (32, 8, 8)),
    "asking": ("map", (8, 16, 16)),
}


def source(shape: str) -> str:
    """Code of one of `SHAPES`, whose class is `Net`."""
    return HEADER + SHAPES[shape]
