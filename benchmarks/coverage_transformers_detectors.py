"""Detectors of transformers, built small."""

from collections.abc import Callable
from typing import Any

import transformers
from coverage_case import Inputs
from coverage_transformers_configs import CLASSIFIERS, SIDE, VIT
from coverage_transformers_inputs import images, masked_images

QUERIES = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_queries": 6,
    "num_labels": 5,
}
_DEEP = {**VIT, "num_hidden_layers": 4}
STAGE_NAMES = ["stage1", "stage2", "stage3", "stage4"]


def resnet(*stages: str) -> Any:
    """Return the configuration of a small backbone with results of these stages."""
    return transformers.ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32, 48, 64],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=list(stages) or ["stage2", "stage3", "stage4"],
    )


Options = dict[str, Any] | Callable[[], dict[str, Any]]
Task = tuple[str, Options, Callable[[int, int], Inputs], int]


def _rt_resnet(*, frozen: bool = True) -> dict[str, Any]:
    return {
        "backbone_config": transformers.RTDetrResNetConfig(
            embedding_size=16,
            hidden_sizes=[16, 32, 48, 64],
            depths=[1, 1, 1, 1],
            layer_type="basic",
            out_features=["stage2", "stage3", "stage4"],
        ),
        **QUERIES,
        "encoder_hidden_dim": 32,
        "encoder_in_channels": [32, 48, 64],
        "decoder_in_channels": [32, 32, 32],
        "num_denoising": 0,
        "anchor_image_size": None,
        "freeze_backbone_batch_norms": frozen,
    }


def _hgnet() -> dict[str, Any]:
    options = {**CLASSIFIERS["HGNet V2"][1], "out_features": ["stage2", "stage3", "stage4"]}
    return {**_rt_resnet(), "backbone_config": transformers.HGNetV2Config(**options)}


DETECTORS: dict[str, Task] = {
    "DETR": (
        "DetrForObjectDetection",
        lambda: {"backbone_config": resnet("stage4"), **QUERIES},
        masked_images,
        SIDE,
    ),
    "DETR panoptic": (
        "DetrForSegmentation",
        lambda: {
            "backbone_config": resnet(*STAGE_NAMES),
            **QUERIES,
            "d_model": 64,
            "decoder_attention_heads": 8,
            "encoder_attention_heads": 8,
        },
        masked_images,
        SIDE,
    ),
    "Conditional DETR": (
        "ConditionalDetrForObjectDetection",
        lambda: {"backbone_config": resnet("stage4"), **QUERIES},
        masked_images,
        SIDE,
    ),
    "DAB-DETR": (
        "DabDetrForObjectDetection",
        lambda: {"backbone_config": resnet("stage4"), **QUERIES, "hidden_size": 32},
        masked_images,
        SIDE,
    ),
    "Deformable DETR": (
        "DeformableDetrForObjectDetection",
        lambda: {
            "backbone_config": resnet(),
            **QUERIES,
            "num_feature_levels": 3,
            "disable_custom_kernels": True,
        },
        masked_images,
        SIDE,
    ),
    "Deformable DETR refined": (
        "DeformableDetrForObjectDetection",
        lambda: {
            "backbone_config": resnet(),
            **QUERIES,
            "num_feature_levels": 4,
            "with_box_refine": True,
            "disable_custom_kernels": True,
        },
        masked_images,
        128,
    ),
    "Table Transformer": (
        "TableTransformerForObjectDetection",
        lambda: {"backbone_config": resnet("stage4"), **QUERIES},
        masked_images,
        SIDE,
    ),
    "RT-DETR": ("RTDetrForObjectDetection", _rt_resnet, images, SIDE),
    "RT-DETR V2": ("RTDetrV2ForObjectDetection", _rt_resnet, images, SIDE),
    "D-FINE": ("DFineForObjectDetection", _hgnet, images, SIDE),
    "DEIM V2": ("Deimv2ForObjectDetection", _hgnet, images, SIDE),
    "LW-DETR": (
        "LwDetrForObjectDetection",
        lambda: {
            "backbone_config": transformers.LwDetrViTConfig(
                **{
                    **_DEEP,
                    "pretrain_image_size": 64,
                    "num_windows": 4,
                    "window_block_indices": [0, 1],
                    "out_indices": [2, 4],
                }
            ),
            "projector_scale_factors": [1.0],
            "d_model": 32,
            "decoder_layers": 2,
            "decoder_ffn_dim": 32,
            "decoder_self_attention_heads": 4,
            "decoder_cross_attention_heads": 4,
            "num_queries": 6,
            "group_detr": 2,
            "num_labels": 5,
            "c2f_num_blocks": 1,
        },
        masked_images,
        SIDE,
    ),
    "RF-DETR": (
        "RfDetrForObjectDetection",
        lambda: {
            "backbone_config": transformers.RfDetrDinov2Config(
                **{**_DEEP, "num_windows": 2, "out_indices": [2, 4]}
            ),
            "d_model": 32,
            "decoder_layers": 2,
            "decoder_ffn_dim": 32,
            "decoder_self_attention_heads": 4,
            "decoder_cross_attention_heads": 4,
            "num_queries": 6,
            "group_detr": 2,
            "num_labels": 5,
            "c2f_num_blocks": 1,
        },
        masked_images,
        SIDE,
    ),
    "YOLOS": (
        "YolosForObjectDetection",
        {**VIT, "image_size": [SIDE, SIDE], "num_detection_tokens": 6},
        images,
        SIDE,
    ),
}
