"""From images to features: CLIP's towers and other backbones that guide."""
