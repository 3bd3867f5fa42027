"""The paper's figures, drawn with Matplotlib; tools/visualize.py puts them to use."""
