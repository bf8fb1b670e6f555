"""What the loader takes as a base, and what it refuses in words."""

from __future__ import annotations

import torch

from clinic_ai_ultrasound.pictures import picture
from clinic_ai_ultrasound.prompts import prompt


def test_a_base_sees_the_image(loaded, picture_file):
    logits = []
    for seed in (0, 1):
        inputs = loaded.processor(picture(picture_file(seed)), prompt("Which view?"), return_tensors="pt")
        with torch.inference_mode():
            logits.append(loaded.model(**inputs).logits)
    assert (inputs["input_ids"] == loaded.model.config.image_token_id).sum() == loaded.image_tokens
    assert not torch.equal(*logits)
