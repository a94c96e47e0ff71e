"""Export a model as one graph from token ids to the result, in OpenVINO and ONNX, checked against torch.

This package does not quantize; `students.export` does.
"""
