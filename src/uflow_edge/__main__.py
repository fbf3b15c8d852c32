"""``python -m uflow_edge`` lists the commands; each is a module too, should the scripts not be on the PATH."""

COMMANDS = {
    "uflow-train": ("training.command", "learn what good parts look like"),
    "uflow-export": ("export.command", "turn a checkpoint into a bundle, and a bundle into engines"),
    "uflow-calibrate": ("calibration.command", "fit the null model and the threshold to good images of the line"),
    "uflow-infer": ("runtime.command", "inspect cameras, images or a video"),
    "uflow-evaluate": ("training.evaluation.command", "measure a model on labelled images"),
    "uflow-bench": ("benchmarks.latency.command", "measure how fast a bundle is on this machine"),
    "uflow-train-unet": ("training.diffusion_command", "train a small diffusion network"),
    "uflow-purify": ("runtime.purify.command", "take the traces of cameras and edits out of pictures"),
}

if __name__ == "__main__":
    for command, (module, purpose) in COMMANDS.items():
        print(f"{command:18}{purpose} (python -m uflow_edge.{module})")
    print("\nEach explains itself with --help.")
