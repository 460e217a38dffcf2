"""Segmenters, depth, video and text with images of transformers, built small."""

from typing import Any

import transformers
from coverage_transformers_configs import CLASSIFIERS, SIDE, STAGES, VIT, WINDOWS
from coverage_transformers_detectors import QUERIES, STAGE_NAMES, Task, resnet
from coverage_transformers_inputs import (
    boxed,
    clip,
    experts,
    four_channels,
    images,
    prompted,
    text_and_images,
    video,
)

_TEXT = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 99,
    "max_position_embeddings": 32,
    "projection_dim": 32,
    "eos_token_id": 98,
    "bos_token_id": 97,
    "pad_token_id": 1,
}
_PAIR = {"text_config": _TEXT, "vision_config": VIT, "projection_dim": 32}
_NECK = {"neck_hidden_sizes": [16, 24, 32, 48], "fusion_hidden_size": 16}
_DEEP = {**VIT, "num_hidden_layers": 4}


def _swin(**more: Any) -> Any:
    four = {"depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4], "out_features": STAGE_NAMES}
    return transformers.SwinConfig(**{**WINDOWS, **four, **more})


def _vit_backbone(config: str, **more: Any) -> Any:
    return getattr(transformers, config)(**{**_DEEP, "out_features": STAGE_NAMES, **more})


def _sam() -> dict[str, Any]:
    vision = {**VIT, "output_channels": 16, "window_size": 2, "global_attn_indexes": [1]}
    vision["initializer_range"] = 0.02
    prompt = {"hidden_size": 16, "image_size": SIDE, "mask_input_channels": 4}
    decoder = {
        "hidden_size": 16,
        "mlp_dim": 32,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 16,
    }
    return {
        "vision_config": {**vision, "num_pos_feats": 8},
        "prompt_encoder_config": prompt,
        "mask_decoder_config": decoder,
    }


def _sam2_vision() -> dict[str, Any]:
    detail = {
        "hidden_size": 8,
        "image_size": [128, 128],
        "blocks_per_stage": [1, 2, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "window_size_per_stage": [4, 4, 4, 4],
        "global_attention_blocks": [4],
        "window_positional_embedding_background_size": [4, 4],
    }
    return {
        "backbone_config": transformers.Sam2HieraDetConfig(**detail),
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        "fpn_hidden_size": 16,
    }


def _upernet(body: Any) -> dict[str, Any]:
    head = {
        "hidden_size": 24,
        "auxiliary_channels": 16,
        "num_labels": 5,
        "auxiliary_in_channels": 48,
    }
    return {"backbone_config": body, **head}


_MASKS = {
    "feature_size": 32,
    "mask_feature_size": 32,
    "hidden_dim": 32,
    "encoder_feedforward_dim": 32,
    "dim_feedforward": 32,
    "num_attention_heads": 4,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "num_queries": 6,
    "num_labels": 5,
}
TASKS: dict[str, Task] = {
    "Mask2Former": (
        "Mask2FormerForUniversalSegmentation",
        lambda: {"backbone_config": _swin(image_size=128), **_MASKS},
        images,
        128,
    ),
    "MaskFormer": (
        "MaskFormerForInstanceSegmentation",
        lambda: {
            "backbone_config": _swin(image_size=128),
            "decoder_config": transformers.DetrConfig(backbone_config=resnet("stage4"), **QUERIES),
            "fpn_feature_size": 32,
            "mask_feature_size": 32,
        },
        images,
        128,
    ),
    "SegFormer": (
        "SegformerForSemanticSegmentation",
        {
            "hidden_sizes": [16, 32, 48, 64],
            "depths": [1, 1, 1, 1],
            "decoder_hidden_size": 24,
            "num_labels": 5,
        },
        images,
        SIDE,
    ),
    "UPerNet ResNet": (
        "UperNetForSemanticSegmentation",
        lambda: _upernet(resnet(*STAGE_NAMES)),
        images,
        SIDE,
    ),
    "UPerNet ConvNeXt": (
        "UperNetForSemanticSegmentation",
        lambda: _upernet(transformers.ConvNextConfig(**{**STAGES, "out_features": STAGE_NAMES})),
        images,
        SIDE,
    ),
    "UPerNet Swin": (
        "UperNetForSemanticSegmentation",
        lambda: {**_upernet(_swin()), "auxiliary_in_channels": 64},
        images,
        SIDE,
    ),
    "MobileNet V2 segmentation": (
        "MobileNetV2ForSemanticSegmentation",
        {"depth_multiplier": 0.25, "num_labels": 5},
        images,
        SIDE,
    ),
    "MobileViT segmentation": (
        "MobileViTForSemanticSegmentation",
        {**CLASSIFIERS["MobileViT"][1], "num_labels": 5, "aspp_out_channels": 16},
        images,
        SIDE,
    ),
    "MobileViT V2 segmentation": (
        "MobileViTV2ForSemanticSegmentation",
        {**CLASSIFIERS["MobileViT V2"][1], "num_labels": 5, "aspp_out_channels": 16},
        images,
        SIDE,
    ),
    "BEiT segmentation": (
        "BeitForSemanticSegmentation",
        {**_DEEP, "out_indices": [1, 2, 3, 4], "auxiliary_channels": 16, "num_labels": 5},
        images,
        SIDE,
    ),
    "DPT": (
        "DPTForDepthEstimation",
        {**_DEEP, **_NECK, "backbone_out_indices": [0, 1, 2, 3]},
        images,
        SIDE,
    ),
    "DPT segmentation": (
        "DPTForSemanticSegmentation",
        {**_DEEP, **_NECK, "backbone_out_indices": [0, 1, 2, 3], "num_labels": 5},
        images,
        SIDE,
    ),
    "GLPN": (
        "GLPNForDepthEstimation",
        {
            "num_attention_heads": [1, 2, 4, 8],
            "hidden_sizes": [16, 32, 48, 64],
            "depths": [1, 1, 1, 1],
            "decoder_hidden_size": 24,
        },
        images,
        SIDE,
    ),
    "Depth Anything": (
        "DepthAnythingForDepthEstimation",
        lambda: {
            "backbone_config": _vit_backbone("Dinov2Config", reshape_hidden_states=False),
            "patch_size": 16,
            "reassemble_hidden_size": 48,
            "head_hidden_size": 16,
            **_NECK,
        },
        images,
        SIDE,
    ),
    "Prompt Depth Anything": (
        "PromptDepthAnythingForDepthEstimation",
        lambda: {
            "backbone_config": _vit_backbone("Dinov2Config", reshape_hidden_states=False),
            "patch_size": 16,
            "reassemble_hidden_size": 48,
            "head_hidden_size": 16,
            **_NECK,
        },
        prompted,
        SIDE,
    ),
    "ZoeDepth": (
        "ZoeDepthForDepthEstimation",
        lambda: {
            "backbone_config": _vit_backbone("BeitConfig", reshape_hidden_states=False),
            "backbone_hidden_size": 48,
            "bottleneck_features": 16,
            "num_relative_features": 8,
            "bin_embedding_dim": 8,
            "num_attractors": [4, 2, 2, 1],
            "bin_configurations": [{"n_bins": 8, "min_depth": 0.001, "max_depth": 10.0}],
            **_NECK,
        },
        images,
        SIDE,
    ),
    "VitMatte": (
        "VitMatteForImageMatting",
        lambda: {
            "backbone_config": transformers.VitDetConfig(
                **{**VIT, "num_channels": 4, "out_features": ["stage2"]}
            ),
            "hidden_size": 48,
            "convstream_hidden_sizes": [8, 16, 24],
            "fusion_hidden_sizes": [32, 24, 16, 8],
        },
        four_channels,
        SIDE,
    ),
    "VitPose": (
        "VitPoseForPoseEstimation",
        lambda: {
            "backbone_config": transformers.VitPoseBackboneConfig(
                **{
                    **VIT,
                    "image_size": [SIDE, SIDE],
                    "patch_size": [16, 16],
                    "out_features": ["stage2"],
                }
            ),
            "num_labels": 5,
        },
        images,
        SIDE,
    ),
    "VitPose classic": (
        "VitPoseForPoseEstimation",
        lambda: {
            "backbone_config": transformers.VitPoseBackboneConfig(
                **{
                    **VIT,
                    "image_size": [SIDE, SIDE],
                    "patch_size": [16, 16],
                    "out_features": ["stage2"],
                }
            ),
            "num_labels": 5,
            "use_simple_decoder": False,
        },
        images,
        SIDE,
    ),
    "VitPose experts": (
        "VitPoseForPoseEstimation",
        lambda: {
            "backbone_config": transformers.VitPoseBackboneConfig(
                **{
                    **VIT,
                    "image_size": [SIDE, SIDE],
                    "patch_size": [16, 16],
                    "num_experts": 3,
                    "part_features": 16,
                    "out_features": ["stage2"],
                }
            ),
            "num_labels": 5,
        },
        experts,
        SIDE,
    ),
    "EoMT": (
        "EomtForUniversalSegmentation",
        {**_DEEP, "num_blocks": 1, "num_queries": 6, "num_labels": 5, "num_upscale_blocks": 1},
        images,
        SIDE,
    ),
    "SAM": ("SamModel", _sam, boxed, SIDE),
    "SAM vision": ("SamVisionModel", lambda: _sam()["vision_config"], images, SIDE),
    "SAM 2 vision": ("Sam2VisionModel", _sam2_vision, images, 128),
    "SuperPoint": (
        "SuperPointForKeypointDetection",
        {
            "encoder_hidden_sizes": [8, 16, 24, 32],
            "decoder_hidden_size": 32,
            "descriptor_decoder_dim": 16,
            "keypoint_threshold": 0.0,
        },
        images,
        SIDE,
    ),
    "Swin2SR": (
        "Swin2SRForImageSuperResolution",
        {"image_size": 32, "embed_dim": 16, "depths": [2], "num_heads": [2], "window_size": 8},
        images,
        32,
    ),
    "Swin2SR direct": (
        "Swin2SRForImageSuperResolution",
        {
            "image_size": 32,
            "embed_dim": 16,
            "depths": [2],
            "num_heads": [2],
            "window_size": 8,
            "upsampler": "pixelshuffledirect",
        },
        images,
        32,
    ),
    "Swin2SR nearest": (
        "Swin2SRForImageSuperResolution",
        {
            "image_size": 32,
            "embed_dim": 16,
            "depths": [2],
            "num_heads": [2],
            "window_size": 8,
            "upsampler": "nearest+conv",
            "upscale": 4,
        },
        images,
        32,
    ),
    "PP-OCR mobile detection": ("PPOCRV5MobileDetForObjectDetection", {}, images, SIDE),
    "ViT MAE": (
        "ViTMAEForPreTraining",
        {
            **VIT,
            "decoder_hidden_size": 24,
            "decoder_num_hidden_layers": 1,
            "decoder_num_attention_heads": 4,
            "decoder_intermediate_size": 32,
        },
        images,
        SIDE,
    ),
    "TimeSformer": ("TimesformerForVideoClassification", {**VIT, "num_frames": 4}, video, SIDE),
    "VideoMAE": ("VideoMAEForVideoClassification", {**VIT, "num_frames": 4}, video, SIDE),
    "ViViT": ("VivitForVideoClassification", {**VIT, "num_frames": 4}, video, SIDE),
    "V-JEPA 2": (
        "VJEPA2ForVideoClassification",
        {
            **VIT,
            "crop_size": SIDE,
            "frames_per_clip": 4,
            "pred_hidden_size": 24,
            "pred_num_attention_heads": 4,
            "pred_num_hidden_layers": 1,
            "num_pooler_layers": 1,
        },
        clip,
        SIDE,
    ),
    "CLIP": ("CLIPModel", _PAIR, text_and_images, SIDE),
    "CLIPSeg": (
        "CLIPSegForImageSegmentation",
        {
            **_PAIR,
            "extract_layers": [0, 1],
            "reduce_dim": 16,
            "decoder_num_attention_heads": 4,
            "decoder_intermediate_size": 32,
        },
        text_and_images,
        SIDE,
    ),
    "SigLIP": ("SiglipModel", {**_PAIR}, text_and_images, SIDE),
    "OWL-ViT": (
        "OwlViTForObjectDetection",
        {**_PAIR, "projection_dim": 48},
        text_and_images,
        SIDE,
    ),
    "BLIP retrieval": (
        "BlipForImageTextRetrieval",
        {**_PAIR, "image_text_hidden_size": 32},
        text_and_images,
        SIDE,
    ),
    "ViLT": (
        "ViltForQuestionAnswering",
        {**VIT, "vocab_size": 99, "num_labels": 5},
        text_and_images,
        SIDE,
    ),
    "Donut Swin": ("DonutSwinModel", {**WINDOWS}, images, SIDE),
    "MGP-STR": (
        "MgpstrForSceneTextRecognition",
        {
            "image_size": [SIDE, SIDE],
            "patch_size": 16,
            "hidden_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_bpe_labels": 50,
            "num_wordpiece_labels": 60,
        },
        images,
        SIDE,
    ),
}
