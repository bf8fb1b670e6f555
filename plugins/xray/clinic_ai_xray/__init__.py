"""The X-ray plugin: judges frontal chest X-rays with small classifiers, and trains them on the spot."""
