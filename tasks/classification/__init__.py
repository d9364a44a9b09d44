"""Image classification: models, data, schemes of sharing, and experiments that compare them.

A model is one line in `models.MODELS`, a data set one in `data.DATA`, a scheme one in
`schemes.SCHEMES`. Studies of trained models are files in `studies/`.
"""
