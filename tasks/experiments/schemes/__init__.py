"""Schemes of sharing: what each of them does to a model before, between and after its phases."""
