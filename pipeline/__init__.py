"""The library. What it imports is told first to report nothing of its use to anybody."""

import os
import sys

for name, value in {
    "DO_NOT_TRACK": "1",  # of whoever asks for it
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ITERATIVE_DO_NOT_TRACK": "1",  # libraries of DVC's
    "RAY_USAGE_STATS_ENABLED": "0",
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime looks at it while it is imported, and never again
}.items():
    os.environ.setdefault(name, value)  # whoever has set it means it
# openvino reports that it is imported, has no switch, and goes without this package
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
