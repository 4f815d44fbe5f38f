"""A Face Landmarker of MediaPipe, as far as it is read, that sees what it is told."""

import zipfile

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema


def write_task(path, points):
    """A .task whose landmark network gives these points, [478, 3] in its 256 x 256 input.

    The mean of the picture, then a 1 x 1 convolution with no weights and the points as bias."""
    values = np.asarray(points, np.float32).ravel()
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.buffers, graph.tensors = 3, [schema.BufferT()], []
    for name, shape, data in (
        ("input", (1, 256, 256, 3), None),
        ("mean", (1, 1, 1, 3), None),
        ("weights", (len(values), 1, 1, 3), np.zeros((len(values), 1, 1, 3), np.float32)),
        ("bias", values.shape, values),
        ("points", (1, 1, 1, len(values)), None),
    ):
        tensor, buffer = schema.TensorT(), schema.BufferT()
        tensor.name, tensor.shape, tensor.buffer = name, list(shape), len(model.buffers)
        tensor.type = schema.TensorType.FLOAT32
        if data is not None:
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
        model.buffers.append(buffer)
        graph.tensors.append(tensor)
    model.operatorCodes, graph.operators = [], []
    for builtin, options, inputs, output in (
        ("AVERAGE_POOL_2D", "Pool2DOptions", [0], 1),
        ("CONV_2D", "Conv2DOptions", [1, 2, 3], 4),
    ):
        code, operator = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, builtin)
        code.version = 1
        operator.opcodeIndex = len(model.operatorCodes)
        operator.inputs, operator.outputs = inputs, [output]
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
        operator.builtinOptions = getattr(schema, f"{options}T")()
        operator.builtinOptions.strideW = operator.builtinOptions.strideH = 1
        operator.builtinOptions.padding = schema.Padding.VALID
        if builtin == "AVERAGE_POOL_2D":
            operator.builtinOptions.filterWidth = operator.builtinOptions.filterHeight = 256
        else:
            operator.builtinOptions.dilationWFactor = operator.builtinOptions.dilationHFactor = 1
        model.operatorCodes.append(code)
        graph.operators.append(operator)
    graph.inputs, graph.outputs, model.subgraphs = [0], [4], [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    with zipfile.ZipFile(path, "w") as task:
        task.writestr("face_landmarks_detector.tflite", bytes(builder.Output()))
    return path
