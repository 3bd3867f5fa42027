"""Many runs compared: tools/ablation.py trains, evaluates and tabulates them with this."""
