import pytest
import torch
from torch import Tensor, nn

from flyweight.config.preprocessing import Preprocessing
from flyweight.exporting.model_card import ModelCard


class SmallNet(nn.Module):
    """Every place a batch normalisation can be folded into, and one where it cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(3),
            nn.ReLU(),
            nn.Conv2d(3, 8, 3, stride=2, bias=False),
            nn.BatchNorm2d(8),
            nn.LeakyReLU(0.1),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.BatchNorm2d(8),
            nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2),
            nn.BatchNorm2d(6),
        )
        self.head = nn.Sequential(
            nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 4)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(images)
        return features, self.head(features.mean((2, 3)))


@pytest.fixture
def small_net() -> SmallNet:
    generator = torch.Generator().manual_seed(0)
    model = SmallNet()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.normal_(0, 0.5, generator=generator)
            if name.endswith("running_var"):
                tensor.abs_().add_(0.5)
    return model


@pytest.fixture
def card() -> ModelCard:
    return ModelCard(
        name="small",
        architecture="small_net",
        task="classify",
        labels=("cat", "Hündin", "a: b"),
        preprocessing=Preprocessing(height=16, width=16),
        extra={"accuracy": "0.5"},
        flyweight_version="1.2.3",
    )
