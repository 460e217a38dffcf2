"""Small networks of several kinds, and pruned ones, for the tests of distillation."""

import torch
from torch import nn
from torch.nn import functional

import flyweight as fw


class Block(nn.Module):
    """A residual block whose ReLU runs twice, in place, as torchvision's does."""

    def __init__(self, in_channels, channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.short = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        found = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        found += self.short(x)
        return self.relu(found)


class Classifier(nn.Module):
    """Two stages of blocks, of strides 2 and 4."""

    def __init__(self, width=8, blocks=2, classes=5):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 2, 1)
        stages = [(width, width, 1), (width, 2 * width, 2)]
        for number, (before, after, stride) in enumerate(stages):
            layers = [Block(before, after, stride)]
            layers += [Block(after, after, 1) for _ in range(blocks - 1)]
            self.add_module(f"layer{number}", nn.Sequential(*layers))
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(2 * width, classes)

    def forward(self, x):
        maps = self.layer1(self.layer0(self.stem(x)))
        return self.fc(self.drop(functional.adaptive_avg_pool2d(maps, 1).flatten(1)))


class Segmenter(nn.Module):
    """An encoder, a decoder and scores, all of whose sizes are powers of 2."""

    def __init__(self, width=6, classes=3):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.ReLU())
        self.up = nn.Sequential(nn.Conv2d(3 * width, width, 3, 1, 1), nn.ReLU())
        self.scores = nn.Conv2d(width, classes, 1)

    def forward(self, x):
        fine = self.down(x)
        wide = functional.interpolate(self.deep(fine), scale_factor=2.0)
        found = self.scores(self.up(torch.cat((fine, wide), dim=1)))
        return functional.interpolate(found, size=x.shape[-2:], mode="bilinear")


def seeded(build, seed=0):
    torch.manual_seed(seed)
    return build()


def randomised(model, seed=5):
    """Give running statistics values that are not those of a fresh network."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return model


def pruned(model, side=32, ratio=0.5):
    graph = fw.trace(model.eval(), (torch.zeros(1, 3, side, side),))
    return fw.prune(model, fw.plan(graph, ratio))


def yolo(name="yolov3_mobilenet_v1", classes=2, seed=0):
    return seeded(lambda: fw.create(name, num_classes=classes, width=0.1), seed)
