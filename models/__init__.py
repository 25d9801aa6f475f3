"""The nets: where they come from, and how they become Caffe2 NetDefs."""
