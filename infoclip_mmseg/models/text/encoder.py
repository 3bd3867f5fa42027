"""TextEncoder: from prompts to normalised text embeddings, by way of the caches.

Legend: T classes (or words, where each keeps its own embedding), P prompts of a class, n prompts in
all, L tokens of a prompt, C channels of the joint embedding space.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor, nn

from infoclip_mmseg.models.text.cache import recall, vocabulary_key
from infoclip_mmseg.models.text.packing import Run, call, encode_tokens, pooling
from infoclip_mmseg.models.text.prompts import PromptSet
from infoclip_mmseg.models.text.tokenizers import Tokenizer, build_tokenizer

KEPT = 2
"""Vocabularies whose tokens and embeddings are kept in memory: classes and guard words."""
LOG_SECONDS = 10.0
"""Progress of a large vocabulary is logged at most so often."""


class TextEncoder:
    """The text tower of a CLIP model with its tokenizer and the embeddings it has made.

    It is a plain class around the model and no module, so that the weights keep their place and
    name. A deep copy of a module that holds both refers to the copied model.

    Embeddings are kept where the tower cannot change under them: in evaluation, or when it is
    frozen; the last two vocabularies in memory, all of them in ``cache_dir``, if there is one.

    ``model_name``, what the open_clip model with split attention was built from, tells the
    tokenizer; ``batch_size``, ``cache_dir`` and ``tokenizer_dir`` are ``text_batch_size``,
    ``text_cache_dir`` and ``tokenizer_dir`` of :class:`~infoclip_mmseg.models.CLIPDualEncoder`.
    """

    def __init__(
        self,
        clip: Any,
        model_name: str | dict,
        batch_size: int = 256,
        cache_dir: str | None = None,
        tokenizer_dir: str | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f'text_batch_size must be at least 1, got {batch_size}')
        self.clip, self.model_name = clip, model_name
        self.batch_size, self.cache_dir = batch_size, cache_dir
        self.tokenizer_dir = tokenizer_dir
        self._tokenizer: Tokenizer | None = None
        self._tokens: dict[tuple[str, ...], Tensor] = {}
        self._embeddings: dict[tuple, Tensor] = {}

    @property
    def tower(self) -> Any:
        """The module that holds the tower's parts."""
        return getattr(self.clip, 'text', self.clip)

    @property
    def tokenizer(self) -> Tokenizer:
        """Prompt strings to token ids (n, L); built at first use, may be replaced."""
        if self._tokenizer is None:
            length = self.tower.context_length
            self._tokenizer = build_tokenizer(self.model_name, length, self.tokenizer_dir)
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._tokens.clear()
        self.forget()

    def forget(self) -> None:
        """Forget the embeddings in memory."""
        self._embeddings.clear()

    def encode(self, tokens: Tensor, run: Run = call) -> Tensor:
        """Text embeddings (n, C), not normalised, of token ids (n, L); see `encode_tokens`."""
        return encode_tokens(self.tower, tokens, run)

    def embed(self, prompts: PromptSet, run: Run = call) -> Tensor:
        """L2-normalised embeddings (T, P, C), float32, from the caches where they may be used.

        With synonyms 'average' those of a class are averaged and normalised again, with 'max' each
        has its own row, and T is the number of words. What is cached is computed outside autocast,
        so that mixed precision costs no accuracy in it.
        """
        if self._trains():
            return self.embed_anew(prompts, run)
        device, dtype, _ = version = self._version()
        key = (prompts, version)
        if key not in self._embeddings:
            _make_room(self._embeddings, [old for old in self._embeddings if old[1] != version])
            with torch.no_grad(), torch.autocast(device.type, enabled=False):
                self._embeddings[key] = self._recall(prompts, dtype).to(device)
        return self._embeddings[key]

    def embed_anew(self, prompts: PromptSet, run: Run = call) -> Tensor:
        """:meth:`embed` without caches."""
        tokens, texts = self._tokenize(prompts.texts), prompts.texts
        batch_size = len(texts) if torch.is_grad_enabled() else self.batch_size

        def unit(tokens: Tensor) -> Tensor:
            return F.normalize(self.encode(tokens, run).float(), dim=-1)

        embeddings = encode_in_batches(unit, tokens, texts, batch_size)
        slots = prompts.num_embeddings * prompts.num_templates
        if len(texts) != slots:
            owners = torch.tensor(prompts.owners).to(embeddings.device, non_blocking=True)
            zeros = embeddings.new_zeros(slots, embeddings.shape[-1])
            embeddings = F.normalize(zeros.index_add(0, owners, embeddings), dim=-1)
        return embeddings.unflatten(0, (prompts.num_embeddings, prompts.num_templates))

    def _recall(self, prompts: PromptSet, dtype: torch.dtype) -> Tensor:
        """:meth:`embed_anew` by way of the cache on disk, if all the weights are here."""
        parameters = text_parameters(self.clip)
        sharded = any(hasattr(parameter, 'placements') for _, parameter in parameters)
        if self.cache_dir is None or sharded:
            return self.embed_anew(prompts)
        block = self.tower.transformer.resblocks[0]
        pool = pooling(self.tower)
        architecture = (str(block), block.attn.num_heads, *pool, self.tower.attn_mask is None)
        tokens = self._tokenize(prompts.texts)
        key = vocabulary_key(parameters, architecture, prompts, tokens, dtype)
        return recall(self.cache_dir, key, partial(self.embed_anew, prompts))

    def _tokenize(self, texts: tuple[str, ...]) -> Tensor:
        """Token ids (n, L) on the CPU; those of the last texts are at hand."""
        if texts not in self._tokens:
            _make_room(self._tokens)
            self._tokens[texts] = self.tokenizer(list(texts)).int()
        return self._tokens[texts]

    def _trains(self) -> bool:
        trained = any(parameter.requires_grad for _, parameter in text_parameters(self.clip))
        return trained and (self.clip.training or torch.is_grad_enabled())

    def _version(self) -> tuple[torch.device, torch.dtype, tuple[tuple[int, int], ...]]:
        """What changes with the weights: their place, and how often each was written to."""
        weight = self.tower.token_embedding.weight
        versions = tuple((p.data_ptr(), p._version) for _, p in text_parameters(self.clip))
        return weight.device, weight.dtype, versions


def _make_room(kept: dict, outdated: Sequence[Any] = ()) -> None:
    """Drop what is outdated, and the oldest entries until there is room for another."""
    for key in [*outdated, *list(kept)[: max(0, len(kept) - KEPT + 1)]]:
        kept.pop(key, None)


def text_parameters(clip: Any) -> list[tuple[str, nn.Parameter]]:
    """Names and parameters of a CLIP model without those of its image tower."""
    visual = {id(parameter) for parameter in clip.visual.parameters()}
    return [(name, p) for name, p in clip.named_parameters() if id(p) not in visual]


def encode_in_batches(
    encode: Callable[[Tensor], Tensor], tokens: Tensor, texts: Sequence[str], batch_size: int
) -> Tensor:
    """Encode prompts a batch at a time, equal ones once; what takes long is logged.

    ``encode`` maps token ids (b, L) to embeddings (b, C), the result is (n, C) for all n prompts.
    """
    place: dict[str, int] = {}
    index = torch.tensor([place.setdefault(text, len(place)) for text in texts])
    unique = torch.empty(len(place), dtype=torch.long).scatter_(0, index, torch.arange(len(texts)))
    parts, done, total = [], 0, len(unique)
    start = last = time.monotonic()
    for rows in unique.split(batch_size):
        parts.append(encode(tokens[rows.to(tokens.device)]))
        done, now = done + len(rows), time.monotonic()
        if now - last >= LOG_SECONDS or (last > start and done == total):
            last, rate = now, done / max(now - start, 1e-9)
            eta = timedelta(seconds=round((total - done) / rate))
            rates = f'{rate:.0f} a second, eta {eta}'
            print_log(f'text: {done} of {total} prompts encoded, {rates}', logger='current')
    encoded = torch.cat(parts)
    return encoded if total == len(texts) else encoded[index.to(encoded.device, non_blocking=True)]
