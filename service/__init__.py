"""The service: bundles behind HTTP. Never imports torch, training or onnx."""
