"""Published checkpoints of MAFT+ and FC-CLIP to this plugin's layout."""

from __future__ import annotations

import re
from typing import Any

import torch
from mmseg.registry import MODELS
from torch import Tensor

from infoclip_mmseg.models.backbones.names import split_qkv
from infoclip_mmseg.models.decode_heads.cat_seg_checkpoint import (
    Conversion,
    check_complete,
    count_indices,
)

_PIXELS, _DECODER = 'decode_head.proposals.pixel_decoder', 'decode_head.proposals.decoder'
_LAYER = rf'{_DECODER}.decoder.layers.\1'
_PREDICTOR = r'sem_seg_head\.predictor\.'
# Pattern and replacement of the beginning of a key; the first match counts.
_RULES = {
    r'backbone\.clip_model\.': 'backbone.clip.',
    r'void_embedding\.': 'decode_head.void_embedding.',
    r'cdt\.cross_atten\.multihead_attn\.': 'decode_head.transfer.attention.',
    r'cdt\.cross_atten\.norm\.': 'decode_head.transfer.norm.',
    r'cdt\.cross_atten\.MLP\.': 'decode_head.transfer.proj.',
    r'sem_seg_head\.pixel_decoder\.input_proj\.': f'{_PIXELS}.input_projections.',
    r'sem_seg_head\.pixel_decoder\.transformer\.': f'{_PIXELS}.',
    r'sem_seg_head\.pixel_decoder\.mask_features\.': f'{_PIXELS}.mask_projection.',
    r'sem_seg_head\.pixel_decoder\.(adapter|layer)_(\d)\.norm\.': rf'{_PIXELS}.\1_\2.1.',
    r'sem_seg_head\.pixel_decoder\.(adapter|layer)_(\d)\.': rf'{_PIXELS}.\1_\2.0.',
    rf'{_PREDICTOR}query_feat\.': f'{_DECODER}.queries_features.',
    rf'{_PREDICTOR}query_embed\.': f'{_DECODER}.queries_embedder.',
    rf'{_PREDICTOR}level_embed\.': f'{_DECODER}.level_embed.',
    rf'{_PREDICTOR}decoder_norm\.': f'{_DECODER}.decoder.layernorm.',
    rf'{_PREDICTOR}mask_embed\.layers\.(\d)\.': (
        rf'{_DECODER}.decoder.mask_predictor.mask_embedder.\1.0.'
    ),
    rf'{_PREDICTOR}transformer_cross_attention_layers\.(\d+)\.multihead_attn\.': (
        f'{_LAYER}.cross_attn.'
    ),
    rf'{_PREDICTOR}transformer_cross_attention_layers\.(\d+)\.norm\.': (
        f'{_LAYER}.cross_attn_layer_norm.'
    ),
    rf'{_PREDICTOR}transformer_self_attention_layers\.(\d+)\.norm\.': (
        f'{_LAYER}.self_attn_layer_norm.'
    ),
    rf'{_PREDICTOR}transformer_self_attention_layers\.(\d+)\.': f'{_LAYER}.',
    rf'{_PREDICTOR}transformer_ffn_layers\.(\d+)\.linear': f'{_LAYER}.fc',
    rf'{_PREDICTOR}transformer_ffn_layers\.(\d+)\.norm\.': f'{_LAYER}.final_layer_norm.',
    rf'{_PREDICTOR}class_embed\.': 'decode_head.in_vocabulary.',
    rf'{_PREDICTOR}_mask_pooling_proj\.': 'decode_head.in_vocabulary.pooled_proj.',
    rf'{_PREDICTOR}logit_scale': 'decode_head.in_vocabulary.logit_scale',
}
_SAMPLES = 3 * 4  # levels and points of a head of the pixel decoder's attention
_ENCODER = {'linear': 'fc', 'norm1': 'self_attn_layer_norm', 'norm2': 'final_layer_norm'}
_SELF_ATTENTION = re.compile(r'(.*\.decoder\.layers\.\d+\.self_attn)\.in_proj_(weight|bias)')


def rename_key(key: str) -> str | None:
    """A published key under this plugin's name; None where it has no place."""
    rule = next((pattern for pattern in _RULES if re.match(pattern, key)), None)
    if rule is None:
        return None
    name = re.sub(rule, _RULES[rule], key, count=1)
    if name.startswith(f'{_PIXELS}.encoder.'):
        for theirs, ours in _ENCODER.items():
            name = name.replace(f'.{theirs}', f'.{ours}')
    return name


def convert_maftp(
    source: dict[str, Any], form: str = 'semantic', heads: dict[str, int] | None = None
) -> Conversion:
    """Convert a state dict of MAFT+'s or FC-CLIP's published layout.

    It may be wrapped as ``{'model': ...}``. A frozen copy of CLIP (``backbone_t.*``) is left out:
    it is the pretrained CLIP. Weights of another model are a ValueError, which tells what is
    missing or of another shape.

    Args:
        source: State dict.
        form: Form of the transfer that the weights were trained with, which they do not tell:
            'panoptic' for maftp_l_pano.pth. Without meaning for FC-CLIP.
        heads: Heads of the attentions that leave no trace in the weights, where they are others
            than published: ``transfer`` and ``text``.
    """
    source = source.get('model', source)
    source = {key.removeprefix('module.'): torch.as_tensor(v) for key, v in source.items()}
    derived = sorted(k for k in source if k.startswith(('backbone_t.', 'criterion.')))
    names = {key: rename_key(key) for key in source if key not in derived}
    state = {name: source[key] for key, name in names.items() if name is not None}
    clip = {name: value for name, value in state.items() if name.startswith('backbone.')}
    head = {name: value for name, value in state.items() if name not in clip}
    state = {**split_qkv(clip), **_split_self_attention(head)}
    if 'decode_head.transfer.norm.weight' in state:
        state['decode_head.transfer.is_panoptic'] = torch.tensor(float(form == 'panoptic'))
    model = infer_model(state, form, heads or {})
    with torch.device('meta'):
        expected = MODELS.build(model).state_dict()
    by_name = {name: key for key, name in names.items()}
    unplaced = [key for key, name in names.items() if name is None]
    unplaced += [by_name.get(name, name) for name in state if name not in expected]
    state = {name: value for name, value in state.items() if name in expected}
    check_complete(state, expected, 'a MAFT+ or FC-CLIP model')
    return Conversion(state, model, derived, sorted(set(unplaced)))


def infer_model(state: dict[str, Tensor], form: str, heads: dict[str, int]) -> dict:
    """Model config whose tensors have the shapes of ``state`` (this plugin's names).

    Missing tensors are a ValueError.
    """
    try:
        clip, proposals = _clip_config(state, heads), _proposals_config(state)
    except KeyError as error:
        raise ValueError(
            f'not a checkpoint of MAFT+ or FC-CLIP with a ConvNeXt: tensor {error} is missing. '
            'Supported are maftp_b.pth, maftp_l.pth, maftp_l_pano.pth, fcclip_cocopan.pth and '
            'others of their layout'
        ) from error
    head = dict(type='MaskClassificationHead', proposals=proposals)
    if 'decode_head.transfer.norm.weight' in state:
        count = heads.get('transfer', 8)
        head['transfer'] = dict(type='ContentDependentTransfer', num_heads=count, form=form)
    return dict(
        type='OpenVocabSegmentor',
        backbone=dict(type='CLIPDualEncoder', model_name=clip, finetune='frozen'),
        decode_head=head,
        input_size=None,
        templates='vild',
        synonyms='max',
        test_cfg=dict(mode='whole'),
    )


def _clip_config(state: dict[str, Tensor], heads: dict[str, int]) -> dict:
    clip = 'backbone.clip.'
    trunk = f'{clip}visual.trunk.'
    stages = range(count_indices(state, trunk + r'stages\.(\d+)\.'))
    text_width = state[f'{clip}ln_final.weight'].shape[0]
    patch = rf'{trunk}stages\.{{}}\.blocks\.(\d+)\.'
    vision = dict(
        timm_model_name='convnext_atto',
        timm_pool='',
        timm_proj='mlp' if f'{clip}visual.head.mlp.fc1.weight' in state else 'linear',
        image_size=320,
        convnext=dict(
            depths=[count_indices(state, patch.format(i)) for i in stages],
            dims=[state[f'{trunk}stages.{i}.blocks.0.gamma'].shape[0] for i in stages],
            stem_stride=state[f'{trunk}stem.0.weight'].shape[-1],
        ),
    )
    text = dict(
        context_length=state[f'{clip}positional_embedding'].shape[0],
        vocab_size=state[f'{clip}token_embedding.weight'].shape[0],
        width=text_width,
        heads=heads.get('text', max(1, text_width // 64)),
        layers=count_indices(state, clip + r'transformer\.resblocks\.(\d+)\.'),
    )
    embed_dim = state[f'{clip}text_projection'].shape[1]
    return dict(embed_dim=embed_dim, vision_cfg=vision, text_cfg=text)


def _proposals_config(state: dict[str, Tensor]) -> dict:
    pixels, decoder = f'{_PIXELS}.', f'{_DECODER}.decoder.'
    queries, hidden = state[f'{_DECODER}.queries_features.weight'].shape
    return dict(
        type='Mask2FormerProposals',
        num_queries=queries,
        hidden_dim=hidden,
        num_heads=state[f'{pixels}encoder.layers.0.self_attn.attention_weights.bias'].numel()
        // _SAMPLES,
        encoder_layers=count_indices(state, pixels + r'encoder\.layers\.(\d+)\.'),
        encoder_ffn=state[f'{pixels}encoder.layers.0.fc1.weight'].shape[0],
        decoder_layers=count_indices(state, decoder + r'layers\.(\d+)\.'),
        decoder_ffn=state[f'{decoder}layers.0.fc1.weight'].shape[0],
    )


def _split_self_attention(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values of the decoder's self-attention apart."""
    split: dict[str, Tensor] = {}
    for name, value in state.items():
        packed = _SELF_ATTENTION.fullmatch(name)
        if packed is None:
            split[name] = value
            continue
        for part, third in zip('qkv', value.chunk(3)):
            split[f'{packed[1]}.{part}_proj.{packed[2]}'] = third
    return split
