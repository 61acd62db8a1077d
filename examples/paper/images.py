"""A table of the Hidden Attention of Mamba Models on pictures: perturbation on ImageNet, or ImageNet-Segmentation.

    python examples/paper/images.py --table perturbation --output out/paper/perturbation
    python examples/paper/images.py --table segmentation --data out/gtsegs --output out/paper/segmentation

Pictures come from the Hub or from a folder (``--data``); perturbation reads the columns image and label, segmentation
image and mask. Interrupted, the same command goes on at the last picture.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from PIL.Image import Resampling
from side_by_side import write_table

from hf_mambalrp import VimLRPForImageClassification
from hf_mambalrp.evaluation import evaluate_image_explanations
from hf_mambalrp.evaluation.dataset import drawn
from hf_mambalrp.evaluation.images.settings import DEFAULT_METHODS
from hf_mambalrp.models.vim.processor import image_processor

SECOND = {"perturbation": "label", "segmentation": "mask"}
"""The column beside the picture."""
IMAGENET = "ILSVRC/imagenet-1k"
VIM_SMALL = "hustvl/Vim-small-midclstok/vim_s_midclstok_80p5acc.pth"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", required=True, choices=SECOND)
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--data", help=f"Hub id or folder; default of perturbation: {IMAGENET}")
    parser.add_argument("--split", help="default: validation of perturbation, train of segmentation")
    parser.add_argument("--model", default=VIM_SMALL, help="folder, .pth file, or either of the Hub")
    parser.add_argument("--methods", nargs="+", default=list(DEFAULT_METHODS))
    parser.add_argument("--samples", type=int, default=1000, help="pictures, drawn by the seed, which memory holds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, help="default: one for each GPU")
    arguments = parser.parse_args()
    perturbation, gpus = arguments.table == "perturbation", torch.cuda.device_count()
    data = arguments.data or (IMAGENET if perturbation else parser.error("--table segmentation needs --data."))
    split = arguments.split or ("validation" if perturbation else "train")

    found = load_dataset(data, split=split)
    column = SECOND[arguments.table]
    if missing := {"image", column} - set(found.column_names):
        parser.error(f"{data} has no column {sorted(missing)}, but {found.column_names}.")
    numbers = drawn(list(range(len(found))), arguments.samples, arguments.seed)
    rows = found.select(numbers)

    model = VimLRPForImageClassification.from_pretrained(arguments.model).to("cuda" if gpus else "cpu")
    side = model.config.image_size
    options: dict[str, Any] = {"labels": list(rows["label"])} if perturbation else {"masks": list(rows["mask"])}
    if not perturbation:  # the whole picture as a square, whose mask is cut nowhere
        square = {"size": {"height": side, "width": side}, "do_center_crop": False, "resample": Resampling.BILINEAR}
        options["processor"] = image_processor(model.config, **square)
    evaluation = evaluate_image_explanations(
        model,
        list(rows["image"]),
        ids=numbers,
        methods=arguments.methods,
        perturbation=perturbation,
        processes=arguments.processes or max(1, gpus),
        seed=arguments.seed,
        output_dir=arguments.output / "pictures",
        **options,
    )
    results = evaluation.results
    about = {
        "Model": arguments.model,
        "Data": f"{data}, {len(numbers)} pictures of {split}",
        "Explained": "the label" if perturbation else "the predicted class",
        **results["versions"],
    }
    write_table(arguments.output, arguments.table, about, results["methods"])
    print(evaluation)
    print(f"written: {arguments.output}/side_by_side.html")


if __name__ == "__main__":
    main()
