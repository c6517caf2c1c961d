"""The whole localization test through PyPI's si4onnx, for benchmarks/localization.py; environment as for _si4onnx.py.

Called with a file {size, unet, problems: [(noise, x, x_ref)], precision}; prints one line of JSON per problem.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import onnx
import si4onnx
import torch
from _networks import Localizer, UNet
from _si4onnx import Exported, readable
from si4onnx.operators import Abs, AverageFilter, InputDiff


def main() -> None:
    task = torch.load(sys.argv[1])
    torch.set_num_threads(1)
    unet = UNet().eval()
    unet.load_state_dict(task["unet"])
    for noise, x, x_ref in task["problems"]:
        detector = Localizer(unet, task["size"], torch.Generator()).eval()
        detector.noise.copy_(noise)
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "detector.onnx")
            torch.onnx.export(
                Exported(detector.double()).eval(), x[None].double(), path, opset_version=13, dynamo=False
            )
            model = readable(onnx.load(path))
        hypothesis = si4onnx.ReferenceMeanDiff(threshold=0.8, post_process=[InputDiff(), AverageFilter(), Abs()])
        loaded = si4onnx.load(model=model, hypothesis=hypothesis)
        started = time.process_time()
        result = loaded.inference((x[None].double(), x_ref[None].double()), var=1.0, precision=task["precision"])
        seconds = time.process_time() - started
        names = {
            "p_value": "p_value",
            "p_low": "inf_p",
            "p_high": "sup_p",
            "pieces": "search_count",
            "statistic": "stat",
        }
        values = {ours: float(getattr(result, theirs)) for ours, theirs in names.items()}
        print(json.dumps({"seconds": seconds, **values}), flush=True)


if __name__ == "__main__":
    main()
