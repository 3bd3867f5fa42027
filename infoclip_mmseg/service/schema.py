"""Bodies of requests and answers, near those of Roboflow's concept segmentation."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence
from typing import Any, Literal

from PIL import Image
from pydantic import BaseModel, Field

from infoclip_mmseg.annotations.formats import coco_rle
from infoclip_mmseg.annotations.regions import rings
from infoclip_mmseg.apis.prediction import Prediction
from infoclip_mmseg.utils.images import ImageError

MAX_PROMPTS, MAX_IMAGES, MAX_TEXT = 1000, 32, 500
Format = Literal['polygon', 'rle', 'png']


class ImageBody(BaseModel):
    """An image in a request: the bytes of a file, in base64."""

    type: Literal['base64'] = 'base64'
    value: str


class Prompt(BaseModel):
    """A class: a name, perhaps with synonyms after commas."""

    type: Literal['text'] = 'text'
    text: str = Field(min_length=1, max_length=MAX_TEXT)


class Question(BaseModel):
    """What is asked of images: the prompts compete for the pixels, and so does the background."""

    prompts: list[Prompt] = Field(min_length=1, max_length=MAX_PROMPTS)
    background: list[str] = Field(default=[], max_length=MAX_PROMPTS)
    output_prob_thresh: float = Field(default=0.0, ge=0, le=1)
    format: Format = 'polygon'

    def key(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What requests must share to go through the model together."""
        return tuple(prompt.text for prompt in self.prompts), tuple(self.background)


class Request(Question):
    """One image."""

    image: ImageBody


class BatchRequest(Question):
    """Several images."""

    images: list[ImageBody] = Field(min_length=1, max_length=MAX_IMAGES)


class Mask(BaseModel):
    """Where a prompt was found: rings of [x, y] in pixels, COCO's RLE, or a PNG in base64."""

    masks: Any
    confidence: float
    format: Format


class PromptResult(BaseModel):
    """What was found for a prompt; ``predictions`` is empty where it is nowhere."""

    prompt_index: int
    echo: Prompt
    predictions: list[Mask]


class Answer(BaseModel):
    """Results by prompt, and the seconds that they took."""

    width: int
    height: int
    prompt_results: list[PromptResult]
    time: float


class BatchAnswer(BaseModel):
    """Answers by image."""

    results: list[Answer]
    time: float


def decode_base64(body: ImageBody, name: str) -> bytes:
    """Bytes of an image; an ImageError for what is no base64."""
    try:
        return base64.b64decode(body.value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f'{name}: value is no base64 ({error})') from error


def make_answer(prediction: Prediction, question: Question, seconds: float) -> Answer:
    """The answer to a question about one image.

    A prompt whose pixels have a mean probability below the threshold counts as not found.
    """
    found: list[list[Mask]] = [[] for _ in question.prompts]
    for region in prediction.regions().regions:
        score = region.score or 0.0
        if score >= question.output_prob_thresh:
            mask = Mask(
                masks=_encode(region.mask, question.format),
                confidence=score,
                format=question.format,
            )
            found[region.label].append(mask)
    results = [
        PromptResult(prompt_index=index, echo=prompt, predictions=masks)
        for index, (prompt, masks) in enumerate(zip(question.prompts, found))
    ]
    height, width = prediction.labels.shape
    return Answer(width=width, height=height, prompt_results=results, time=round(seconds, 4))


def label_png(prediction: Prediction) -> bytes:
    """The label map as an indexed PNG, 16-bit grey above 256 names; the background is the last."""
    picture = Image.fromarray(prediction.labels)
    if prediction.labels.dtype.itemsize == 1:
        picture.putpalette([value for colour in prediction.palette for value in colour])
    return _png(picture)


def _encode(mask: Any, form: str) -> Any:
    if form == 'polygon':
        return [ring.tolist() for ring in rings(mask)]
    if form == 'rle':
        return coco_rle(mask)
    return base64.b64encode(_png(Image.fromarray(mask))).decode('ascii')


def _png(picture: Image.Image) -> bytes:
    content = io.BytesIO()
    picture.save(content, 'PNG')
    return content.getvalue()


def parse_prompts(texts: Sequence[str]) -> list[Prompt]:
    """Prompts of a form: each field a name, or several separated by semicolons."""
    names = [name.strip() for text in texts for name in text.split(';')]
    return [Prompt(text=name) for name in names if name]
