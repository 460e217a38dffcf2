"""Networks of monai for images and volumes, built small."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from coverage_case import Case, Inputs
from monai.networks import nets
from torch import nn

_SUITE = "monai"
_U = {"in_channels": 1, "out_channels": 3, "channels": (16, 32, 64), "strides": (2, 2)}
_GAN = {"channels": (8, 16, 32), "strides": (2, 2, 2)}
_DYN = {
    "in_channels": 1,
    "out_channels": 3,
    "kernel_size": (3, 3, 3),
    "strides": (1, 2, 2),
    "upsample_kernel_size": (2, 2),
    "filters": (16, 32, 64),
}
_VIT = {"hidden_size": 48, "mlp_dim": 96, "num_heads": 4, "img_size": 32}
_DIFFUSION = {
    "num_res_blocks": 1,
    "channels": (16, 32),
    "attention_levels": (False, True),
    "norm_num_groups": 8,
    "num_head_channels": 8,
}
_KL = {
    "num_res_blocks": (1, 1),
    "channels": (16, 32),
    "attention_levels": (False, True),
    "latent_channels": 4,
    "norm_num_groups": 8,
}


@dataclass(frozen=True)
class _Row:
    """A class of monai, its arguments, and the shape of its input."""

    network: str
    dims: int
    options: dict[str, Any]
    side: int = 32
    channels: int = 1
    inputs: Any = None
    extra: dict[str, Any] = field(default_factory=dict)


def _rows() -> Iterator[tuple[str, _Row]]:
    for dims in (2, 3):
        yield from _unets(dims, f" {dims}d")
        yield from _transformers(dims, f" {dims}d")
        yield from _others(dims, f" {dims}d")
    yield from _flat_rows()


def _unets(dims: int, flat: str) -> Iterator[tuple[str, _Row]]:
    sized = {"spatial_dims": dims}
    yield "AttentionUnet" + flat, _Row("AttentionUnet", dims, {**sized, **_U})
    yield "UNet" + flat, _Row("UNet", dims, {**sized, **_U})
    residual = {**sized, **_U, "num_res_units": 2, "norm": "batch", "act": "relu"}
    yield "UNet residual" + flat, _Row("UNet", dims, residual)
    features = (16, 16, 32, 64, 64, 16) if dims == 2 else (8, 8, 8, 16, 16, 8)
    basic = {**sized, "in_channels": 1, "features": features}
    yield "BasicUNet" + flat, _Row("BasicUNet", dims, basic)
    yield "BasicUNetPlusPlus" + flat, _Row("BasicUNetPlusPlus", dims, basic)
    deep = {**basic, "deep_supervision": True, "upsample": "nontrainable"}
    yield "BasicUNetPlusPlus deep" + flat, _Row("BasicUNetPlusPlus", dims, deep)
    dynamic = {**sized, **_DYN, "filters": (16, 32, 64) if dims == 2 else (8, 12, 16)}
    yield "DynUNet" + flat, _Row("DynUNet", dims, dynamic)
    deep = {**dynamic, "deep_supervision": True, "res_block": True}
    yield "DynUNet deep" + flat, _Row("DynUNet", dims, deep)
    yield "SegResNet" + flat, _Row("SegResNet", dims, {**sized, "init_filters": 8})
    yield "SegResNetDS" + flat, _Row("SegResNetDS", dims, {**sized, "init_filters": 8})
    ds = {**sized, "init_filters": 8, "dsdepth": 3}
    yield "SegResNetDS deep" + flat, _Row("SegResNetDS", dims, ds)
    ds = {"input_image_size": (32,) * dims, "vae_nz": 16, **sized}
    yield "SegResNetVAE" + flat, _Row("SegResNetVAE", dims, ds)
    if dims == 2:  # volumes take two minutes in double precision
        yield "VNet" + flat, _Row("VNet", dims, {**sized, "dropout_dim": dims})


def _transformers(dims: int, flat: str) -> Iterator[tuple[str, _Row]]:
    sized = {"spatial_dims": dims}
    unetr = {"in_channels": 1, "out_channels": 3, "feature_size": 8, **sized, **_VIT}
    yield "UNETR" + flat, _Row("UNETR", dims, unetr)
    swin = {"in_channels": 1, "out_channels": 3, "feature_size": 12, **sized}
    if dims == 2:  # volumes need sides of 64, which takes minutes
        yield "SwinUNETR" + flat, _Row("SwinUNETR", dims, swin, 64)
        yield "SwinUNETR v2" + flat, _Row("SwinUNETR", dims, {**swin, "use_v2": True}, 64)
    vit = {"in_channels": 1, "patch_size": 8, "num_layers": 2, **sized, **_VIT}
    yield "ViT" + flat, _Row("ViT", dims, {**vit, "classification": True})
    yield "ViTAutoEnc" + flat, _Row("ViTAutoEnc", dims, {**vit, "patch_size": 16})


def _others(dims: int, flat: str) -> Iterator[tuple[str, _Row]]:
    sized = {"spatial_dims": dims}
    next_ = {**sized, "init_filters": 8, "kernel_size": 3}
    yield "MedNeXt" + flat, _Row("MedNeXt", dims, next_)
    more = {"use_residual_connection": True, "deep_supervision": True}
    yield "MedNeXt deep" + flat, _Row("MedNeXt", dims, {**next_, **more})
    dense = {**sized, "in_channels": 1, "out_channels": 3, "block_config": (2, 2)}
    yield "DenseNet" + flat, _Row("DenseNet", dims, dense)
    resnet = {
        "block": "basic",
        "layers": [1, 1, 1, 1],
        "block_inplanes": [8, 16, 24, 32],
        "n_input_channels": 1,
        **sized,
    }
    yield "ResNet" + flat, _Row("ResNet", dims, resnet)
    net = {"model_name": "efficientnet-b0", "pretrained": False, "in_channels": 1, **sized}
    yield "EfficientNetBN" + flat, _Row("EfficientNetBN", dims, net)
    auto = {**sized, **_U, "channels": (16, 32), "num_res_units": 1, "inter_channels": (32,)}
    yield "AutoEncoder" + flat, _Row("AutoEncoder", dims, auto)
    yield "AutoencoderKL" + flat, _Row("AutoencoderKL", dims, {**sized, **_KL})
    yield (
        "PatchDiscriminator" + flat,
        _Row("PatchDiscriminator", dims, {**sized, "channels": 16, "in_channels": 1}),
    )
    yield "VQVAE" + flat, _Row("VQVAE", dims, {**sized, **_vqvae()})
    layers = {**sized, "in_channels": 1, "out_channels": 3}
    yield "HighResNet" + flat, _Row("HighResNet", dims, layers)
    diffusion = {**sized, "in_channels": 1, "out_channels": 1, **_DIFFUSION}
    yield (
        "DiffusionModelUNet" + flat,
        _Row("DiffusionModelUNet", dims, diffusion, side=16, inputs=_with_steps),
    )
    yield (
        "ControlNet" + flat,
        _Row(
            "ControlNet",
            dims,
            {
                **sized,
                "in_channels": 1,
                **_DIFFUSION,
                "conditioning_embedding_num_channels": (8,),
            },
            side=16,
            inputs=_with_condition,
        ),
    )
    morph = {"integration_steps": 2, **sized}
    yield "VoxelMorph" + flat, _Row("VoxelMorph", dims, morph, inputs=_pair)


def _flat_rows() -> Iterator[tuple[str, _Row]]:
    unet = {"in_channels": 3, "out_channels": 3, "backbone": "resnet18"}
    yield "FlexibleUNet resnet18", _Row("FlexibleUNet", 2, unet, 64, 3)
    unet = {**unet, "backbone": "efficientnet-b0"}
    yield "FlexibleUNet efficientnet-b0", _Row("FlexibleUNet", 2, unet, 64, 3)
    yield "Quicknat", _Row("Quicknat", 2, {"num_filters": 16, "num_classes": 5})
    yield (
        "RegUNet",
        _Row(
            "RegUNet",
            2,
            {"spatial_dims": 2, "in_channels": 1, "num_channel_initial": 8, "depth": 2},
        ),
    )
    yield (
        "LocalNet",
        _Row(
            "LocalNet",
            2,
            {
                "spatial_dims": 2,
                "in_channels": 1,
                "num_channel_initial": 8,
                "extract_levels": (0, 1, 2),
            },
        ),
    )
    yield "AHNet", _Row("AHNet", 3, {"in_channels": 1, "out_channels": 3, "psp_block_num": 2})
    shape = {"in_shape": (1, 32, 32)}
    yield "Classifier", _Row("Classifier", 2, {**shape, "classes": 4, **_GAN})
    yield "Discriminator", _Row("Discriminator", 2, {**shape, **_GAN})
    yield "Critic", _Row("Critic", 2, {**shape, **_GAN})
    yield "Regressor", _Row("Regressor", 2, {**shape, "out_shape": (1, 3), **_GAN})
    yield (
        "VarAutoEncoder",
        _Row(
            "VarAutoEncoder",
            2,
            {**shape, "spatial_dims": 2, "latent_size": 8, "out_channels": 1, **_GAN},
        ),
    )
    generator = {"latent_shape": (12,), "start_shape": (32, 8, 8), **_GAN}
    yield "Generator", _Row("Generator", 2, generator, inputs=_latent)
    net = {"in_channels": 12, "out_channels": 3, "hidden_channels": [16, 24]}
    yield "FullyConnectedNet", _Row("FullyConnectedNet", 2, net, inputs=_latent)
    options = {"num_classes": 3, "mil_mode": "att_trans_pyramid", "pretrained": False}
    yield "MILModel", _Row("MILModel", 2, options, 64, 3, inputs=_bag)
    options = {"model_name": "resnet18", "num_classes": 3, "use_conv": True, "pool": None}
    yield "TorchVisionFCModel", _Row("TorchVisionFCModel", 2, options, 64, 3)
    spade = {"spatial_dims": 2, "label_nc": 3}
    yield (
        "SPADENet",
        _Row(
            "SPADENet",
            2,
            {
                **spade,
                "in_channels": 1,
                "out_channels": 1,
                "input_shape": [32, 32],
                "channels": [32, 16],
                "is_vae": False,
            },
            inputs=_with_labels,
        ),
    )
    mae = {"in_channels": 1, "patch_size": 8, "num_layers": 2, "decoder_hidden_size": 24}
    mae |= {"decoder_num_layers": 1, "decoder_num_heads": 4, "spatial_dims": 2, **_VIT}
    yield "MaskedAutoEncoderViT", _Row("MaskedAutoEncoderViT", 2, mae)
    senet = {
        "spatial_dims": 2,
        "in_channels": 3,
        "block": "se_bottleneck",
        "layers": (1, 1, 1, 1),
        "groups": 1,
        "reduction": 16,
        "num_classes": 3,
    }
    yield "SENet", _Row("SENet", 2, senet, 64, 3)
    options = {"num_d": 2, "num_layers_d": 2, "spatial_dims": 2, "channels": 8, "in_channels": 1}
    options["minimum_size_im"] = 64
    yield "MultiScalePatchDiscriminator", _Row("MultiScalePatchDiscriminator", 2, options, 64)


def _vqvae() -> dict[str, Any]:
    return {
        "in_channels": 1,
        "out_channels": 1,
        "channels": (16, 32),
        "num_res_layers": 1,
        "num_res_channels": (16, 32),
        "downsample_parameters": ((2, 4, 1, 1), (2, 4, 1, 1)),
        "upsample_parameters": ((2, 4, 1, 1, 0), (2, 4, 1, 1, 0)),
        "num_embeddings": 16,
        "embedding_dim": 8,
    }


def _image(dims: int, batch: int, side: int, channels: int = 1) -> torch.Tensor:
    return torch.randn(batch, channels, *(side,) * dims)


def _with_steps(dims: int, batch: int, side: int) -> Inputs:
    return (_image(dims, batch, side), torch.arange(1, batch + 1)), {}


def _with_condition(dims: int, batch: int, side: int) -> Inputs:
    image = _image(dims, batch, side)
    return (image, torch.arange(1, batch + 1), torch.randn_like(image)), {}


def _with_labels(dims: int, batch: int, side: int) -> Inputs:
    return (_image(dims, batch, side, 3),), {}


def _pair(dims: int, batch: int, side: int) -> Inputs:
    return (_image(dims, batch, side), _image(dims, batch, side)), {}


def _latent(dims: int, batch: int, side: int) -> Inputs:
    return (torch.randn(batch, 12),), {}


def _bag(dims: int, batch: int, side: int) -> Inputs:
    return (torch.randn(batch, 4, 3, side, side),), {}


def _build(row: _Row) -> nn.Module:
    model: nn.Module = getattr(nets, row.network)(**row.options)
    return model


def cases() -> Iterator[Case]:
    """Yield the networks of the suite."""
    for name, row in _rows():
        shape = (1, row.channels, *(row.side,) * row.dims)
        inputs = partial(row.inputs or _only_image(row.channels), row.dims)
        # A volume of twice the side has eight times the positions.
        sides = (row.side + 16,) if row.dims == 3 else ()
        yield Case(_SUITE, name, partial(_build, row), shape, inputs=inputs, sides=sides)


def _only_image(channels: int) -> Any:
    def made(dims: int, batch: int, side: int) -> Inputs:
        return (_image(dims, batch, side, channels),), {}

    return made
