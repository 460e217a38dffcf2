"""Table of rules: how channel identities flow through each operation.

A row says which rule an ATen operation follows. An operation without a row freezes every channel
that reaches it, with a reason; nothing is guessed. To support an operation, add a row.
"""

from collections.abc import Callable

from flyweight.graph.identity import Flow
from flyweight.graph.rules import (
    contraction,
    einsum,
    elementwise,
    fourier,
    matrices,
    normalised_weights,
    rearrangement,
    recurrent,
    reduction,
    shape,
)
from flyweight.graph.step import Step

Rule = Callable[[Step], Flow | tuple[Flow, ...]]

_PASSES = """
    alias clone contiguous detach dropout feature_dropout alpha_dropout to _to_copy type_as
    lift_fresh_copy relu relu6 leaky_relu elu selu celu gelu silu mish hardtanh hardswish
    hardsigmoid sigmoid log_sigmoid tanh softplus softshrink hardshrink
    threshold rrelu abs neg exp exp2 expm1 log log2 log10 log1p sqrt rsqrt square reciprocal
    sin cos tan erf erfinv ceil floor round trunc frac sign logical_not isnan isinf
    nan_to_num zeros_like ones_like full_like empty_like rand_like
    randn_like bernoulli positive sinh cosh atan view_as_real_copy fill zero
    _assert_tensor_metadata asin acos asinh acosh atanh lgamma digamma polygamma mvlgamma sinc i0
    logit sgn signbit bitwise_not deg2rad rad2deg angle conj _conj _conj_physical _neg_view
    resolve_conj resolve_neg rand_like randint_like uniform normal exponential log_normal cauchy
    geometric random special_i0e special_i1 special_i1e special_ndtri special_log_ndtr special_erfcx
    special_bessel_j0 special_bessel_j1 frexp isposinf isneginf rrelu_with_noise
    _fw_primal fake_quantize_per_tensor_affine
"""
_ELEMENTWISE = """
    add sub rsub mul div true_divide floor_divide remainder fmod pow maximum minimum where
    lerp addcmul addcdiv eq ne lt le gt ge logical_and logical_or logical_xor bitwise_and
    bitwise_or bitwise_xor bitwise_left_shift bitwise_right_shift masked_fill atan2 xlogy subtract
    multiply divide clamp clamp_min clamp_max _prelu_kernel copy fmax fmin hypot copysign nextafter
    logaddexp logaddexp2 heaviside igamma igammac special_xlog1py special_zeta complex polar gcd lcm
    __and__ __or__ __xor__ __lshift__ __rshift__
"""
_CREATES = "arange eye linspace scalar_tensor rand randn tensor"
_FILLS = "zeros ones full empty new_zeros new_ones new_full new_empty"
_RESHAPES = """
    view reshape flatten unflatten _unsafe_view view_as reshape_as ravel squeeze unsqueeze
"""
_PERMUTES = "permute transpose t numpy_T mT movedim moveaxis swapaxes swapdims"
_REDUCES = """
    sum mean amax amin max min prod std var var_mean std_mean logsumexp linalg_vector_norm
    norm all any argmax argmin median nansum nanmean nanmedian mode aminmax count_nonzero
"""
_ALONG = "softmax log_softmax _softmax cumsum cumprod logcumsumexp"
_MATRICES = """
    linalg_inv_ex linalg_matrix_exp linalg_qr _linalg_svd _linalg_eigh linalg_cholesky_ex
    linalg_lu_factor_ex linalg_lu linalg_solve_triangular triangular_solve _linalg_det
    _linalg_slogdet _linalg_solve_ex linalg_pinv linalg_eig
    linalg_householder_product
"""
_SPATIAL = """
    max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d
    adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool2d max_pool2d_with_indices
    upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_bilinear2d
    upsample_bicubic2d upsample_linear1d upsample_trilinear3d _upsample_bilinear2d_aa
    _upsample_bicubic2d_aa _upsample_nearest_exact2d _upsample_nearest_exact1d
    _upsample_nearest_exact3d adaptive_max_pool1d adaptive_max_pool3d max_pool3d_with_indices
    fractional_max_pool2d fractional_max_pool3d
"""


def _rows(names: str, rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


RULES: dict[str, Rule] = {
    **_rows(_PASSES, elementwise.passes),
    **_rows(_ELEMENTWISE, elementwise.elementwise),
    **_rows(_CREATES, elementwise.creates),
    **_rows(_FILLS, elementwise.fills),
    **_rows(_RESHAPES, shape.reshape),
    **_rows(_PERMUTES, shape.permute),
    **_rows(_REDUCES, reduction.reduce),
    **_rows(_ALONG, reduction.along_axis),
    **_rows(_SPATIAL, reduction.spatial),
    **_rows("conv1d conv2d conv3d", contraction.convolution),
    **_rows(
        "conv_transpose1d conv_transpose2d conv_transpose3d", contraction.transposed_convolution
    ),
    **_rows("matmul mm bmm mv dot vdot", contraction.matrix_product),
    **_rows("cat concat concatenate", shape.concatenate),
    **_rows(
        "chunk split split_with_sizes tensor_split unsafe_split unsafe_split_with_sizes",
        shape.chunk,
    ),
    **_rows("expand expand_as broadcast_to", shape.expand),
    **_rows("constant_pad_nd pad", shape.pad),
    **_rows("sort topk kthvalue cummax cummin msort", rearrangement.ordered),
    **_rows("scatter scatter_add scatter_reduce", rearrangement.looked_up),
    "gather": rearrangement.gathered,
    **_rows("index_add index_copy index_fill index_reduce", rearrangement.replaced),
    **_rows("renorm embedding_renorm", rearrangement.renormalised),
    **_rows("max_unpool2d max_unpool3d", reduction.unpooled),
    **_rows("_fft_c2c _fft_r2c _fft_c2r", fourier.transformed),
    **_rows("tril triu", matrices.triangle),
    **_rows("cdist _euclidean_dist _cdist_forward", matrices.distances),
    **_rows("embedding_bag _embedding_bag _embedding_bag_forward_only", contraction.embedding_bag),
    **_rows(_MATRICES, matrices.decomposed),
    **_rows("lstm gru rnn_tanh rnn_relu", recurrent.recurrent),
    **_rows("grid_sampler_2d grid_sampler_3d", rearrangement.sampled),
    **_rows("addmm baddbmm", rearrangement.product_and_sum),
    "pixel_shuffle": rearrangement.pixel_shuffle,
    "pixel_unshuffle": rearrangement.pixel_unshuffle,
    "channel_shuffle": rearrangement.channel_shuffle,
    "unfold": rearrangement.windows,
    "affine_grid_generator": rearrangement.sampling_grid,
    "diagonal": matrices.diagonal,
    "diag_embed": matrices.embedded_diagonal,
    "view_as_complex": fourier.as_complex,
    "view_as_real": fourier.as_real,
    "im2col": rearrangement.unfold,
    "col2im": rearrangement.fold,
    "glu": rearrangement.gated,
    "rot90": rearrangement.turned,
    "deform_conv2d": contraction.deformable_convolution,
    "linear": contraction.linear,
    "_weight_norm": normalised_weights.weight_norm,
    "bilinear": einsum.bilinear,
    "einsum": einsum.einsum,
    "scaled_dot_product_attention": contraction.attention,
    "embedding": contraction.embedding,
    "batch_norm": reduction.batch_norm,
    "_native_batch_norm_legit_no_training": reduction.batch_norm,
    "layer_norm": reduction.layer_norm,
    "rms_norm": reduction.layer_norm,
    "group_norm": reduction.group_norm,
    "instance_norm": reduction.per_channel,
    "prelu": reduction.per_channel,
    "roi_align": reduction.pooled_regions,
    "roi_pool": reduction.pooled_regions,
    "stack": shape.stack,
    "slice": shape.slice_axis,
    "select": shape.select,
    "unbind": shape.unbind,
    "flip": shape.flip,
    "index": shape.index,
    "_unsafe_index": shape.index,
    "index_put": shape.index_put,
    "index_select": shape.index_select,
    "roll": shape.roll,
    "repeat": shape.repeat,
    # `Tensor.tolist` and `Tensor.numpy` execute it, and nothing else does in inference.
    "resolve_neg": elementwise.leaves,
}

WHOLE = frozenset(RULES)
"""Operations that every recording keeps whole. Others are recorded in the parts that PyTorch
composes them of, where it does. All recordings use this one set, so that an operation has the same
name in each of them."""
