"""What mmseg runs: data samples in, losses or predictions out."""
