"""One graph from token ids to the result, in OpenVINO and ONNX, checked against torch.

It does not quantize: `students.export` does.
"""
