"""Other people's tools, each with a constrained model: `make interop` installs and runs them."""
