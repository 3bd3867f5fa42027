"""Distiller: the teacher, and what a student is compared by; taps into foreign students."""
