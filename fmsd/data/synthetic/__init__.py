"""The embedded dataset: procedural faces in two recording conditions, with five forgery families.

Everything is drawn from a seed, so that the whole path from images on disk to a table of results
runs without a download. It is small, but asks the real question: the two datasets differ in
cameras, framing and people, and the second one has forgery families that the first one lacks.

A frame is rendered (identity x pose x light), seen by a camera (blur, noise, colour), manipulated
by a forgery tool whose settings are fixed for a whole video, and stored as JPEG, in this order, as
real deepfakes are.
"""
