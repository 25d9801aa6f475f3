"""The schema of NetDef.

``netdef_pb2.py`` is made from ``netdef.proto`` by protoc 3.21, whose output both protobuf 3.20 and current ones load.
In an environment of its own, with Python 3.10 or older, from the project's root:

    pip install grpcio-tools==1.49.1 "setuptools<70"
    python -m grpc_tools.protoc -I . --python_out . worker/engine/proto/*.proto models/proto/*.proto
"""
