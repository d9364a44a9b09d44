"""The command line, with digits that are not augmented: processes draw their crops apart, and steps would differ.

With CUT_AT_EPOCH in the environment, it ends at the beginning of that epoch, as if it had been killed.
"""

import os

from torch import nn

from lincon.tasks.classification.data.digits import Digits
from lincon.tasks.commands.cli import main
from lincon.tasks.experiments.training.learner import Learner

begin = Learner.on_train_epoch_start


def unaugmented():
    """Have no digits augmented in this process from now on."""
    Digits._augmentation = lambda self: nn.Identity()


def cut_or_begin(self):
    if self.current_epoch == int(os.environ.get("CUT_AT_EPOCH", -1)):
        print("cut", flush=True)
        os._exit(0)
    begin(self)


if __name__ == "__main__":
    unaugmented()
    Learner.on_train_epoch_start = cut_or_begin  # type: ignore[method-assign]
    main()
