"""Models of this package inside of other tools; none of them is needed to import this."""
