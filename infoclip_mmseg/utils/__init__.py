"""Ground floor: imports nothing else of this package."""
