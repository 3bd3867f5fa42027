"""Teacher, taps and losses between teacher and student."""
