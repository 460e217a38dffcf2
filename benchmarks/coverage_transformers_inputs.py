"""Inputs of the networks of transformers, as keywords."""

import torch
from coverage_case import Inputs


def images(batch: int, side: int) -> Inputs:
    """Return images as the keyword that most networks take."""
    return (), {"pixel_values": torch.randn(batch, 3, side, side)}


def masked_images(batch: int, side: int) -> Inputs:
    """Return images and a mask that hides their last columns."""
    mask = torch.ones(batch, side, side, dtype=torch.long)
    mask[:, :, side - 8 :] = 0
    return (), {"pixel_values": torch.randn(batch, 3, side, side), "pixel_mask": mask}


def video(batch: int, side: int) -> Inputs:
    """Return clips of four frames."""
    return (), {"pixel_values": torch.randn(batch, 4, 3, side, side)}


def clip(batch: int, side: int) -> Inputs:
    """Return clips of four frames, by the other keyword."""
    return (), {"pixel_values_videos": torch.randn(batch, 4, 3, side, side)}


def words(batch: int) -> dict[str, torch.Tensor]:
    """Return words and their mask."""
    words = torch.arange(batch * 7).reshape(batch, 7) % 90 + 2
    words[:, -1] = 98
    return {"input_ids": words, "attention_mask": torch.ones_like(words)}


def text_and_images(batch: int, side: int) -> Inputs:
    """Return words, their mask and images."""
    return (), {**words(batch), "pixel_values": torch.randn(batch, 3, side, side)}


def boxed(batch: int, side: int) -> Inputs:
    """Return images and a box in each."""
    images = torch.randn(batch, 3, side, side)
    boxes = torch.tensor([[[4.0, 4.0, side / 2, side / 2]]]).expand(batch, 1, 4).clone()
    return (), {"pixel_values": images, "input_boxes": boxes}


def four_channels(batch: int, side: int) -> Inputs:
    """Return images with a map beside their colours."""
    return (), {"pixel_values": torch.randn(batch, 4, side, side)}


def prompted(batch: int, side: int) -> Inputs:
    """Return images and coarse depth."""
    images = torch.randn(batch, 3, side, side)
    return (), {"pixel_values": images, "prompt_depth": torch.rand(batch, 1, 8, 8)}


def experts(batch: int, side: int) -> Inputs:
    """Return images and the index of their data set."""
    return (), {
        "pixel_values": torch.randn(batch, 3, side, side),
        "dataset_index": torch.zeros(batch, dtype=torch.long),
    }
