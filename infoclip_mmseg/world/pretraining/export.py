"""A pretrained CLIP as a small file: half precision, and only the token rows that it learned."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from infoclip_mmseg.models.backbones.dual_encoder import CLIPDualEncoder
from infoclip_mmseg.models.backbones.weights import TOKEN_ROWS, TOKEN_TABLE


def used_tokens(encoder: CLIPDualEncoder, texts: Iterable[str]) -> Tensor:
    """Sorted ids of all tokens that the texts consist of, start, end and padding included."""
    return torch.unique(torch.as_tensor(encoder.tokenizer(sorted(set(texts)))))


def export_clip(
    encoder: CLIPDualEncoder, path: Path, texts: Iterable[str], metadata: dict[str, str]
) -> Path:
    """Write the encoder's CLIP as .safetensors in float16.

    The token table is cut down to the rows that ``texts`` use, and ``token_embedding.rows`` tells
    which ones they are. :func:`load_clip_weights` puts the table
    together again.

    Args:
        encoder: The pretrained model.
        path: File to write.
        texts: Everything that the model was trained to read, word by word at least.
        metadata: Strings that are kept in the file's header.

    Returns:
        ``path``.
    """
    rows = used_tokens(encoder, texts)
    state = {key: value.detach().cpu() for key, value in encoder.clip.state_dict().items()}
    state[TOKEN_TABLE] = state[TOKEN_TABLE][rows]
    state = {key: value.to(torch.float16).contiguous() for key, value in state.items()}
    state[TOKEN_ROWS] = rows.int()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, str(path), metadata=metadata)
    return path
