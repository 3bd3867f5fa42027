"""The web page of tools/demo.py. Gradio is imported by ``app`` only."""
