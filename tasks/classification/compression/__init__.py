"""Pruning, knapsack channels and quantisation of image classifiers."""
