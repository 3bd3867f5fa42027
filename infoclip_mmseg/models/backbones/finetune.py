"""Which parameters of a CLIP model are trained."""

from __future__ import annotations

from torch import nn

# Trained by CAT-Seg and InfoCLIP: query and value projection weights of every block.
_ATTENTION_SUFFIXES = ('attn.q_proj_weight', 'attn.v_proj_weight')
# No segmentation loss reaches CLIP's contrastive scale and bias.
_NEVER_TRAINED = ('logit_scale', 'logit_bias')

POLICIES = ('attention', 'full', 'frozen')


def _is_trained(name: str, policy: str) -> bool:
    if policy == 'attention':
        return name.endswith(_ATTENTION_SUFFIXES)
    return policy == 'full' and name.rsplit('.', 1)[-1] not in _NEVER_TRAINED


def apply_finetune_policy(model: nn.Module, policy: str) -> list[str]:
    """Set ``requires_grad`` of every parameter of ``model``.

    Args:
        model: An open_clip model with split attention projections.
        policy: ``'attention'`` trains the query and value weights of every block of both towers (no
            biases, no position embeddings; CAT-Seg, section 3.4), ``'full'`` everything but the
            logit scale, ``'frozen'`` nothing.

    Returns:
        Names of the parameters left trainable.

    Raises:
        ValueError: Unknown policy.
    """
    if policy not in POLICIES:
        raise ValueError(f'finetune must be one of {POLICIES}, got {policy!r}')
    trained = []
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_is_trained(name, policy))
        if parameter.requires_grad:
            trained.append(name)
    return trained
