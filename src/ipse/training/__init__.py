"""How encoders are trained: recipes, packed data, losses, samplers, augmentations and the loop."""
