"""Learning from CT volumes in six phases: encoder, classification, localisation, alignment, joint, GRPO."""
