"""Measure what a training step costs with quantization, against a float step.

    python benchmarks/quantization_step.py

Steps of the float network (with batch normalisation in training mode) and of the quantized ones
alternate in one process with one thread; seconds are processor seconds, medians over rounds.
"""

import argparse
import statistics
import time

import torch
from torch import nn

import flyweight as fw
from flyweight.measuring.environment import hardware
from flyweight.quantization.learned_steps import trainable
from flyweight.quantization.quantization_plan import LearnedSteps


def step_of(model: nn.Module, images: torch.Tensor, labels: torch.Tensor):
    """Return a function that does one training step and returns its processor seconds."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), 0.001, momentum=0.9)

    def step() -> float:
        start = time.process_time()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        return time.process_time() - start

    return step


def main() -> None:
    """Print one line for every way to train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="torchvision/mobilenet_v2")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = torch.randn(given.batch, 3, given.size, given.size)
    labels = torch.randint(0, 10, (given.batch,))
    model = fw.create(given.model, num_classes=10)
    quantized = fw.quantize(model.eval(), images)
    networks = {"float": model, "quantized, fixed steps": quantized}
    for method in ("lsq", "pact"):
        networks[method] = trainable(quantized, LearnedSteps(method))
    networks["lsq, integers averaged"] = trainable(quantized, LearnedSteps("lsq", 10**6))
    steps = {name: step_of(one, images, labels) for name, one in networks.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(given.rounds + 1):
        for name, step in steps.items():
            seconds[name].append(step())
    print(f"{given.model}, batch {given.batch}, {given.size} px, one thread, {hardware()}")
    dense = statistics.median(seconds["float"][1:])
    for name, found in seconds.items():
        middle = statistics.median(found[1:])
        print(f"{name:25} {middle:.3f} s (least {min(found[1:]):.3f})  {middle / dense:.2f}x")


if __name__ == "__main__":
    main()
