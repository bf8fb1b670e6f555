"""How near written texts are to reference texts: BLEU-1 to 4, ROUGE-L, METEOR. None of them knows what words mean.

Needs ``sacrebleu`` and ``rouge-score``; METEOR also ``nltk`` with its word list ``wordnet`` on this machine, and is
left out without them: nothing is fetched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

MAX_ORDER = 4


def text_scores(said: Sequence[str], truth: Sequence[str]) -> dict[str, float]:
    """Return ``bleu_1`` to ``bleu_4``, ``rouge_l`` and, where it can be had, ``meteor``; each in 0..1.

    BLEU is of the whole corpus (Papineni et al., 2002; its tokens are those of sacrebleu's 13a), the others are means
    over the texts. Raise ValueError if the numbers of texts differ or are zero.
    """
    if len(said) != len(truth) or not said:
        raise ValueError(f"{len(said)} texts cannot be held against {len(truth)}")
    scores = {f"bleu_{order}": bleu(said, truth, order) for order in range(1, MAX_ORDER + 1)}
    scores["rouge_l"] = rouge_l(said, truth)
    if has_meteor():
        scores["meteor"] = meteor(said, truth)
    return scores


def bleu(said: Sequence[str], truth: Sequence[str], order: int = MAX_ORDER) -> float:
    """Return corpus BLEU with n-grams up to ``order``, upper and lower case alike."""
    from sacrebleu.metrics.bleu import BLEU

    return float(BLEU(lowercase=True, max_ngram_order=order).corpus_score(list(said), [list(truth)]).score) / 100


def rouge_l(said: Sequence[str], truth: Sequence[str]) -> float:
    """Return the mean F-measure of the longest common subsequence of words (Lin, 2004)."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    found = (scorer.score(right, one)["rougeL"].fmeasure for one, right in zip(said, truth, strict=True))
    return math.fsum(found) / len(said)


def meteor(said: Sequence[str], truth: Sequence[str]) -> float:
    """Return the mean METEOR (Banerjee and Lavie, 2005). Raise LookupError if the word list is not installed."""
    from nltk.translate.meteor_score import single_meteor_score

    pairs = ((one.lower().split(), right.lower().split()) for one, right in zip(said, truth, strict=True))
    return math.fsum(single_meteor_score(right, one) for one, right in pairs) / len(said)


@lru_cache(maxsize=1)
def has_meteor() -> bool:
    """Return whether METEOR can be computed here: nltk and its word list are installed."""
    try:
        from nltk.corpus import wordnet

        wordnet.synsets("lung")
    except (ImportError, LookupError):
        return False
    return True
