"""The schemas of Caffe's and TensorFlow's files; the ``.proto`` files say what of each format is taken over.

The Python modules are made as :mod:`worker.engine.proto` says.
"""
