"""One training: the recipe, the learner, the Trainer, and the record that it leaves."""
