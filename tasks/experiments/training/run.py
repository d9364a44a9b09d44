"""The result of one training."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    """The result of one training; lists have one entry per epoch.

    The first measure of the task is its score.

    Args:
        model: name of the model.
        scheme: name of the scheme.
        asked: the DoF that were asked for.
        seed: of the training.
        dof: free numbers in the body.
        total: all parameters.
        file_bytes: size of the saved model.
        epoch_seconds: of training alone, without the test.
        train_loss: mean over the epoch.
        test: by measure, its value on the test set after each epoch.
        train: by measure, its value for the trained model on the training items, without
            augmentation.
        note: what a reader of the numbers must know of the data, such as how they were split.
    """

    model: str
    scheme: str
    asked: int | float | None
    seed: int
    dof: int
    total: int
    file_bytes: int
    epoch_seconds: list[float]
    train_loss: list[float]
    test: dict[str, list[float]]
    train: dict[str, float]
    note: str = ""

    @property
    def curve(self) -> list[float]:
        """The score on the test set after each epoch."""
        return next(iter(self.test.values()))

    @property
    def score(self) -> float:
        """The score on the test set after the last epoch (never the best over epochs)."""
        return self.curve[-1]

    @property
    def train_score(self) -> float:
        """The score of the trained model on the training set."""
        return next(iter(self.train.values()))
