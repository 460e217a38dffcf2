"""Choose the timm networks of the coverage benchmark; write coverage_timm_models.txt.

    python benchmarks/coverage_timm.py

The rule: of every family of every module the variant with the fewest parameters, and every network
that an earlier study of Torch-Pruning names, so that its results can be compared. A family is the
letters that names begin with (`resnet`, `vit`). A network gets the smallest image that it takes.
"""

import re
import sys
import warnings
from collections import defaultdict
from importlib.metadata import version

import timm
import torch
from coverage_models import TIMM_MODELS, build_timm
from timm.models import is_model_in_modules, list_modules

from flyweight.files import write_text

SIDES = (64, 96, 128, 160, 224, 256)

NAMED = """
    bat_resnext26ts beit3_base_patch16_224 botnet26t_256 caformer_s18 cait_s24_224
    cait_xxs24_224 coat_tiny coatnet_pico_rw_224 coatnet_rmlp_nano_rw_224 coatnext_nano_rw_224
    convformer_s18 convit_tiny cpubone_b1_dwnorm cpubone_nano crossvit_9_dagger_240
    crossvit_tiny_240 cs3darknet_focus_s cs3darknet_s cs3se_edgenet_x cs3sedarknet_xdw csatv2
    cspdarknet53 cspresnet50 cspresnext50 davit_tiny deit_tiny_distilled_patch16_224
    deit_tiny_patch16_224 densenet264d densenetblur121d dla60_res2next dm_nfnet_f0 dpn48b
    eca_botnext26ts_256 eca_halonext26ts eca_nfnet_l0 eca_resnet33ts eca_vovnet39b ecaresnet26t
    ecaresnetlight ecaresnext26t_32x4d edgenext_x_small efficientformer_l1 efficientformerv2_s0
    efficientnet_blur_b0 efficientvim_m1 efficientvit_b0 efficientvit_m0 eva02_tiny_patch14_224
    fasternet_t0 fastvit_ma36 fastvit_mci0 fastvit_s12 fastvit_sa12 focalnet_tiny_lrf
    gc_efficientnetv2_rw_t gcresnet33ts gcresnext26ts gcvit_tiny gemma4_vit_167m gmixer_12_224
    gmlp_ti16_224 halonet26t haloregnetz_b hiera_tiny_224 iformer_s lambda_resnet26t
    lamhalobotnet50ts_256 levit_128s levit_conv_128s lowformer_b0 mambaout_femto
    maxvit_pico_rw_256 maxvit_rmlp_pico_rw_256 maxvit_tiny_pm_256 maxvit_tiny_tf_224
    maxxvit_rmlp_nano_rw_256 maxxvitv2_nano_rw_256 mixer_s16_224 mixnet_s
    mobilenetv4_conv_blur_medium mobilenetv4_hybrid_medium_075 mobilenetv5_base mobilevit_xxs
    mobilevitv2_050 mvitv2_tiny naflexvit_base_patch16_gap naflexvit_base_patch16_par_gap
    nest_tiny nextvit_small nf_ecaresnet26 nf_regnet_b0 nf_resnet26 nf_seresnet26 nfnet_l0
    pit_xs_224 poolformer_s12 poolformerv2_s12 pvt_v2_b0 pvt_v2_b2_li qwen3_vit_88m
    res2net50_26w_4s resmlp_12_224 resnest14d resnetblur18 rexnet_100 rexnetr_100
    sam2_hiera_tiny sebotnet33ts_256 sequencer2d_s shvit_s1 skresnet18
    swin_tiny_patch4_window7_224 swinv2_cr_tiny_224 swinv2_tiny_window16_256 tiny_vit_5m_224
    tnt_s_patch16_224 tresnet_m twins_pcpvt_small twins_svt_small visformer_tiny
    vit_base_patch16_rpn_224 vit_pe_core_tiny_patch16_384 vit_relpos_small_patch16_224
    vit_relpos_small_patch16_rpn_224 vit_small_patch14_dinov2 vit_small_patch16_224
    vit_small_patch16_dinov3 vit_small_patch16_rope_224 vit_small_r26_s32_224
    vit_small_resnet50d_s16_224 vit_srelpos_small_patch16_224 vit_tiny_patch16_224
    vit_tiny_r_s16_p8_224 vitamin_small_224 volo_d1_224 xcit_nano_12_p8_224
"""


def family(name: str) -> str:
    """Return the letters that a network's name begins with.

    Example:
        >>> family("resnet10t"), family("tf_efficientnet_b0"), family("vit_tiny_patch16_224")
        ('resnet', 'efficientnet', 'vit')
    """
    found = re.match(r"[a-z]+", re.sub(r"^(tf|legacy)_", "", name))
    return found.group() if found else name


def candidates() -> dict[tuple[str, str], list[str]]:
    """Return the networks of every (module, family), without timm's own test networks."""
    found = defaultdict(list)
    for module in list_modules():
        for name in timm.list_models(module=module):
            if not name.startswith("test_"):
                found[module, family(name)].append(name)
    return dict(found)


def parameters_of(name: str) -> float:
    """Count the parameters of a network on the meta device; infinite where it needs values."""
    try:
        with torch.device("meta"):
            model = timm.create_model(name, pretrained=False)
    except (NotImplementedError, RuntimeError, TypeError, ValueError):
        return float("inf")
    return sum(parameter.numel() for parameter in model.parameters())


def smallest(names: list[str]) -> str:
    """Return the network with the fewest parameters; of equals the first by name."""
    if len(names) == 1:
        return names[0]
    return min(names, key=lambda name: (parameters_of(name), name))


def smallest_side(name: str) -> int:
    """Return the smallest image that a network takes, its own size if none of `SIDES`."""
    own = timm.get_pretrained_cfg(name, allow_unregistered=False)
    sides = [*SIDES, own.input_size[-1] if own else 224]
    for side in sides:
        try:
            model = build_timm(name, side).eval()
            with torch.inference_mode():
                found = model(torch.rand(1, 3, side, side))
        except (AssertionError, IndexError, RuntimeError, TypeError, ValueError, ZeroDivisionError):
            continue
        if bool(found.isfinite().all()):
            return side
    raise RuntimeError(f"{name} takes none of {sides}")


def main() -> int:
    """Write the list; takes about ten minutes."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    chosen = {smallest(names): module for (module, _), names in candidates().items()}
    for name in NAMED.split():
        if timm.is_model(name):
            chosen[name] = next(m for m in list_modules() if is_model_in_modules(name, [m]))
    lines = [f"# module, network, side of its image; by coverage_timm.py, timm {version('timm')}"]
    for name, module in sorted(chosen.items(), key=lambda item: (item[1], item[0])):
        lines.append(f"{module} {name} {smallest_side(name)}")
        print(lines[-1], flush=True)
    write_text(TIMM_MODELS, "\n".join(lines) + "\n")
    print(f"{len(chosen)} networks of {len(set(chosen.values()))} modules: {TIMM_MODELS.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
