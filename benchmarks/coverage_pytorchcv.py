"""Networks of pytorchcv: the smallest of every family for images."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from coverage_case import Case
from pytorchcv.model_provider import get_model

_SUITE = "pytorchcv"

_IMAGENET = """
    alexnet zfnet bn_vgg11 bninception resnet18_wd4 resnetbc14b preresnet18_wd4
    preresnetbc14b resnext14_16x4d seresnet10 seresnetbc26b sepreresnet10 sepreresnetbc26b
    seresnext50_32x4d senet16 resnestabc14 ibn_resnet50 ibnb_resnet50 ibn_resnext50_32x4d
    ibn_densenet121 airnet50_1x64d_r16 airnext50_32x4d_r2 bam_resnet18 cbam_resnet18 resattnet56
    sknet50 scnet50 scneta50 regnetx002 regnety002 diaresnet10 diapreresnet10 diracnet18v2
    sharesnet18 sharesnet50 densenet121 condensenet74_c8_g8 sparsenet121 peleenet drnc26 drnd22
    dpn68 dpn68b darknet_tiny darknet53 channelnet revnet38 bagnet9 dla34 dla46xc msdnet22
    fishnet99 espnetv2_wd2 dicenet_wd5 hrnet_w18_small_v1 vovnet27s selecsls42 hardnet39ds
    xdensenet121_2 squeezenet_v1_1 squeezeresnet_v1_0 sqnxt23_w1 shufflenet_g3_wd4
    shufflenetv2_wd2 shufflenetv2b_wd2 menet108_8x1_g3 mobilenet_wd4 mobilenetb_wd4
    fdmobilenet_wd4 mobilenetv2_wd4 mobilenetv2b_wd4 mobilenetv3_small_w7d20 igcv3_wd4 ghostnet
    mnasnet_small darts proxylessnas_cpu fbnet_cb xception inceptionv3 inceptionresnetv1
    nasnet_4a1056 spnasnet efficientnet_b0 efficientnet_b0b efficientnet_edge_small_b mixnet_s
    isqrtcovresnet18 resneta10 resnetd50b octresnet10_ad2 tresnet_m
"""
_SIDES = {"inceptionv3": 299, "xception": 299, "inceptionresnetv1": 299}

_CIFAR = """
    nin resnet20 preresnet20 resnext20_16x4d seresnet20 sepreresnet20 densenet40_k12
    densenet40_k12_bc xdensenet40_2_k24_bc ror3_56 rir resdropresnet20 shakeshakeresnet20_2x16d
    shakedropresnet20 fractalnet diaresnet20 diapreresnet20 pyramidnet110_a48
"""

_OTHER = {
    "ntsnet_cub": 448,
    "fcn8sd_resnetd50b_voc": 64,
    "pspnet_resnetd50b_voc": 64,
    "deeplabv3_resnetd50b_voc": 64,
    "icnet_resnetd50b_cityscapes": 96,
    "fastscnn_cityscapes": 64,
    "cgnet_cityscapes": 64,
    "dabnet_cityscapes": 64,
    "sinet_cityscapes": 128,
    "bisenet_resnet18_celebamaskhq": 64,
    "danet_resnetd50b_cityscapes": 64,
    "fpenet_cityscapes": 64,
    "ctxnet_cityscapes": 64,
    "lednet_cityscapes": 64,
    "esnet_cityscapes": 64,
    "edanet_cityscapes": 64,
    "enet_cityscapes": 64,
    "erfnet_cityscapes": 64,
    "espcnet_cityscapes": 64,
    "linknet_cityscapes": 64,
    "segnet_cityscapes": 64,
    "unet_cityscapes": 64,
    "sqnet_cityscapes": 64,
    "alphapose_fastseresnet101b_coco": 64,
    "simplepose_resnet18_coco": 64,
    "simplepose_mobile_mobilenet_w1_coco": 64,
    "lwopenpose2d_mobilenet_cmupan_coco": 64,
    "lwopenpose3d_mobilenet_cmupan_coco": 64,
    "ibppose_coco": 128,
    "prnet": 256,
    "centernet_resnet18_voc": 64,
    "lffd20x5s320v2_widerface": 160,
    "pfpcnet": 160,
    "superpointnet": 64,
}
_SIZED = ("_voc", "_cityscapes", "_celebamaskhq", "_coco")
"""Networks that compare the size of their images with the one they were built for."""


def cases() -> Iterator[Case]:
    """Yield the networks of the suite."""
    for name in _IMAGENET.split():
        yield _case(name, name, _SIDES.get(name, 224), {})
    for name in _CIFAR.split():
        yield _case(f"{name}_cifar10", f"{name}_cifar10", 32, {})
    for name, side in _OTHER.items():
        options: dict[str, Any] = {"in_size": (side, side)} if name.endswith(_SIZED) else {}
        yield _case(name, name, side, options)


def _case(name: str, model: str, side: int, options: dict[str, Any]) -> Case:
    channels = 1 if model in ("superpointnet", "pfpcnet") else 3
    build = partial(_built, model, options)
    return Case(_SUITE, name, build, (1, channels, side, side))


def _built(model: str, options: dict[str, Any]) -> Any:
    """Return a network; orders of channels, which are zeros before training, are drawn."""
    network = get_model(model, pretrained=False, **options)
    for name, buffer in network.named_buffers():
        if name.endswith(".index"):
            # A layer may read some of its input's channels alone; each is read once.
            buffer.copy_(torch.randperm(len(buffer)))
    return network
