"""The map: what a generator G is made of and how it is applied."""
