"""Trained models: evaluate, tune, deploy, predict."""
