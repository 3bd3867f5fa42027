"""Parts of heads; none is registered."""
