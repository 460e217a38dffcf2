"""Parts of other libraries that networks and tasks use, loaded on first use: one table.

torchvision and timm take seconds to import, and most networks of the zoo need neither. So modules
import this one and write `library_parts.nms(...)`; the library is imported when that line runs.
"""

from flyweight.on_demand import names_on_demand

_HOMES = {
    # torchvision
    "BalancedPositiveNegativeSampler": (
        "torchvision.models.detection._utils:BalancedPositiveNegativeSampler"
    ),
    "DeformConv2d": "torchvision.ops:DeformConv2d",
    "FrozenBatchNorm2d": "torchvision.ops:FrozenBatchNorm2d",
    "Matcher": "torchvision.models.detection._utils:Matcher",
    "batched_nms": "torchvision.ops:batched_nms",
    "box_iou": "torchvision.ops:box_iou",
    "get_model_weights": "torchvision.models:get_model_weights",
    "nms": "torchvision.ops:nms",
    "roi_align": "torchvision.ops:roi_align",
    "torchvision_models": "torchvision.models",
    # timm, and the hub that holds its weights
    "get_arch_pretrained_cfgs": "timm.models:get_arch_pretrained_cfgs",
    "get_pretrained_cfg": "timm.models:get_pretrained_cfg",
    "hf_hub_download": "huggingface_hub:hf_hub_download",
    "timm": "timm",
    # The extra `smp`.
    "segmentation_models_pytorch": "segmentation_models_pytorch",
    # Networks of the zoo that are built of layers of torchvision.
    "DeepLabV3Plus": "flyweight.zoo.segmenters.deeplab:DeepLabV3Plus",
}

__getattr__ = names_on_demand(__name__, _HOMES)
