"""An example of a plugin of fmsd: a method, a dataset and an optimizer wrapper."""
