"""Programs: networks as files that need no code: ONNX, torch.export, TorchScript."""
