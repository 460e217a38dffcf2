"""Small configurations of the classifiers and backbones of transformers: class and arguments."""

from typing import Any

SIDE = 64
VIT = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "image_size": SIDE,
    "patch_size": 16,
}
STAGES = {"depths": [1, 1, 2, 1], "hidden_sizes": [16, 32, 48, 64]}
WINDOWS = {
    "image_size": SIDE,
    "embed_dim": 16,
    "depths": [2, 2],
    "num_heads": [2, 4],
    "window_size": 4,
}

CLASSIFIERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Aimv2Vision": ("Aimv2VisionModel", {**VIT}),
    "BEiT": ("BeitForImageClassification", {**VIT}),
    "BEiT relative": (
        "BeitForImageClassification",
        {**VIT, "use_relative_position_bias": True, "layer_scale_init_value": 0.1},
    ),
    "Data2Vec": ("Data2VecVisionForImageClassification", {**VIT}),
    "BiT": (
        "BitForImageClassification",
        {**STAGES, "embedding_size": 16, "num_groups": 4, "layer_type": "preactivation"},
    ),
    "BiT bottleneck": (
        "BitForImageClassification",
        {**STAGES, "embedding_size": 16, "num_groups": 4, "layer_type": "bottleneck"},
    ),
    "CLIP vision": ("CLIPVisionModel", {**VIT}),
    "CLIP classifier": ("CLIPForImageClassification", {"vision_config": {**VIT}}),
    "ConvNeXt": ("ConvNextForImageClassification", {**STAGES}),
    "ConvNeXt V2": ("ConvNextV2ForImageClassification", {**STAGES}),
    "CvT": (
        "CvtForImageClassification",
        {"embed_dim": [16, 32, 48], "num_heads": [1, 2, 4], "depth": [1, 2, 3]},
    ),
    "DeiT": ("DeiTForImageClassificationWithTeacher", {**VIT}),
    "DINOv2": ("Dinov2ForImageClassification", {**VIT}),
    "DINOv2 SwiGLU": ("Dinov2ForImageClassification", {**VIT, "use_swiglu_ffn": True}),
    "DINOv2 registers": ("Dinov2WithRegistersForImageClassification", {**VIT}),
    "DINOv3 ConvNeXt": ("DINOv3ConvNextModel", {**STAGES}),
    "DINOv3 ViT": ("DINOv3ViTModel", {**VIT}),
    "DINOv3 ViT gated": ("DINOv3ViTModel", {**VIT, "use_gated_mlp": True}),
    "EfficientNet": (
        "EfficientNetForImageClassification",
        {"width_coefficient": 0.5, "depth_coefficient": 0.5, "hidden_dim": 640},
    ),
    "FocalNet": (
        "FocalNetForImageClassification",
        {"image_size": SIDE, "embed_dim": 16, "depths": [1, 1, 1, 1]},
    ),
    "HGNet V2": (
        "HGNetV2ForImageClassification",
        {
            "embedding_size": 16,
            "hidden_sizes": [16, 32, 48, 64],
            "stem_channels": [3, 8, 16],
            "stage_in_channels": [16, 16, 32, 48],
            "stage_mid_channels": [8, 16, 24, 32],
            "stage_out_channels": [16, 32, 48, 64],
            "stage_num_blocks": [1, 1, 1, 1],
            "stage_numb_of_layers": [2, 2, 2, 2],
        },
    ),
    "Hiera": (
        "HieraForImageClassification",
        {
            "image_size": [SIDE, SIDE],
            "embed_dim": 16,
            "depths": [1, 1, 2, 1],
            "num_heads": [1, 2, 4, 8],
        },
    ),
    "I-JEPA": ("IJepaForImageClassification", {**VIT}),
    "MLCD": ("MLCDVisionModel", {**VIT}),
    "MobileNet V1": ("MobileNetV1ForImageClassification", {"depth_multiplier": 0.25}),
    "MobileNet V2": ("MobileNetV2ForImageClassification", {"depth_multiplier": 0.25}),
    "MobileViT": (
        "MobileViTForImageClassification",
        {
            "image_size": SIDE,
            "hidden_sizes": [16, 24, 32],
            "neck_hidden_sizes": [8, 16, 24, 32, 40, 48, 64],
        },
    ),
    "MobileViT V2": (
        "MobileViTV2ForImageClassification",
        {"image_size": SIDE, "width_multiplier": 0.25},
    ),
    "Pixio": ("PixioModel", {**VIT}),
    "PoolFormer": (
        "PoolFormerForImageClassification",
        {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1]},
    ),
    "PP-LCNet": ("PPLCNetForImageClassification", {"scale": 0.5}),
    "PVT": (
        "PvtForImageClassification",
        {
            "image_size": SIDE,
            "hidden_sizes": [16, 32, 48, 64],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 4, 8],
        },
    ),
    "PVT V2": (
        "PvtV2ForImageClassification",
        {
            "image_size": SIDE,
            "hidden_sizes": [16, 32, 48, 64],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 4, 8],
        },
    ),
    "PVT V2 linear": (
        "PvtV2ForImageClassification",
        {
            "image_size": SIDE,
            "hidden_sizes": [16, 32, 48, 64],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 4, 8],
            "linear_attention": True,
        },
    ),
    "RegNet": (
        "RegNetForImageClassification",
        {**STAGES, "embedding_size": 16, "groups_width": 8, "layer_type": "y"},
    ),
    "RegNet x": (
        "RegNetForImageClassification",
        {**STAGES, "embedding_size": 16, "groups_width": 8, "layer_type": "x"},
    ),
    "ResNet": ("ResNetForImageClassification", {**STAGES, "embedding_size": 16}),
    "ResNet backbone": (
        "ResNetBackbone",
        {**STAGES, "embedding_size": 16, "out_features": ["stage2", "stage4"]},
    ),
    "SegFormer classifier": (
        "SegformerForImageClassification",
        {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1]},
    ),
    "SigLIP vision": ("SiglipVisionModel", {**VIT}),
    "SigLIP classifier": ("SiglipForImageClassification", {"vision_config": {**VIT}}),
    "SwiftFormer": (
        "SwiftFormerForImageClassification",
        {"depths": [1, 1, 2, 1], "embed_dims": [16, 32, 48, 64]},
    ),
    "Swin": ("SwinForImageClassification", {**WINDOWS}),
    "Swin backbone": ("SwinBackbone", {**WINDOWS, "out_features": ["stage1", "stage2"]}),
    "Swin V2": ("Swinv2ForImageClassification", {**WINDOWS}),
    "TextNet": (
        "TextNetForImageClassification",
        {
            "stem_out_channels": 16,
            "hidden_sizes": [16, 16, 32, 48, 64],
            "conv_layer_kernel_sizes": [[[3, 3]], [[3, 1]], [[1, 3]], [[3, 3], [3, 1]]],
            "conv_layer_strides": [[2], [2], [2], [2, 1]],
        },
    ),
    "ViT": ("ViTForImageClassification", {**VIT}),
    "ViT pooled": ("ViTModel", {**VIT}),
    "ViT masked": ("ViTForMaskedImageModeling", {**VIT, "encoder_stride": 16}),
    "ViT MSN": ("ViTMSNForImageClassification", {**VIT}),
    "ViTDet": (
        "VitDetModel",
        {
            **VIT,
            "window_size": 2,
            "window_block_indices": [0],
            "use_relative_position_embeddings": True,
        },
    ),
    "LeViT": (
        "LevitForImageClassification",
        {
            "image_size": 128,
            "hidden_sizes": [32, 48, 64],
            "num_attention_heads": [2, 3, 4],
            "depths": [1, 1, 1],
            "key_dim": [8, 8, 8],
        },
    ),
    "RADIO": ("RadioModel", {**VIT, "max_img_size": SIDE, "mlp_ratio": 2.0}),
    "VitPose backbone": (
        "VitPoseBackbone",
        {**VIT, "image_size": [SIDE, SIDE], "patch_size": [16, 16]},
    ),
}
