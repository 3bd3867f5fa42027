"""Backward passes written by hand for training on a CPU in float32."""
