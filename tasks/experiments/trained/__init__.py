"""Trained models: measure, tune, deploy, predict."""
