"""Networks: ONNX files or torch modules as a DAG of affine maps and ReLUs."""
