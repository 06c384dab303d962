"""
The editor that is the model: diffusers' Qwen image edit with nunchaku's transformer.

torch, diffusers and nunchaku are imported when the first edit comes, and the weights
are loaded then; they stay. They are read from a folder and never from the network.
"""

from __future__ import annotations

import errno
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image

from common.engine.editors import Edit, EditorMissing, OnStep, WeightsMissing, weights

log = logging.getLogger(__name__)

# How the 8-step weights were distilled: a shift of 3, whatever the size. Source:
# generate_with_diffusers.py of ModelTC/Qwen-Image-Lightning, as nunchaku's example
# examples/v1/qwen-image-edit-2509-lightning.py uses it.
SCHEDULER = {
    "base_image_seq_len": 256,
    "base_shift": math.log(3),
    "invert_sigmas": False,
    "max_image_seq_len": 8192,
    "max_shift": math.log(3),
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "shift_terminal": None,
    "stochastic_sampling": False,
    "time_shift_type": "exponential",
    "use_beta_sigmas": False,
    "use_dynamic_shifting": True,
    "use_exponential_sigmas": False,
    "use_karras_sigmas": False,
}

#: Loads the transformer from models folders.
LoadTransformer = Callable[[Sequence[Path]], Any]


def quantized(models: Sequence[Path]) -> Any:
    """
    Return nunchaku's transformer in the format of this machine's card.

    Raises:
        EditorMissing: no nunchaku, or no card that it knows.
        WeightsMissing: files are absent.
    """
    import torch

    if not torch.cuda.is_available():
        raise EditorMissing("torch finds no CUDA card; use the embedded engine")
    kind = weights.precision(torch.cuda.get_device_capability())
    if missing := weights.absent(models, kind):
        raise WeightsMissing(f"{models[0]} has no {' and no '.join(missing)}")
    try:
        from nunchaku import NunchakuQwenImageTransformer2DModel
    except ImportError as error:
        raise EditorMissing(
            "nunchaku is not installed: it is on no package index, so install the wheel"
            " for your Python and torch from"
            " https://github.com/nunchaku-ai/nunchaku/releases"
        ) from error
    path = weights.transformer_path(models, kind)
    return NunchakuQwenImageTransformer2DModel.from_pretrained(str(path))


class QwenEditor:
    """
    Edits with the model.

    Args:
        models: folders with what `common.engine.editors.weights` names; the first that
            has a thing counts.
        transformer: loads the transformer; a test's is small and of random numbers.
    """

    def __init__(
        self, models: Sequence[Path], transformer: LoadTransformer = quantized
    ) -> None:
        self._models = models
        self._transformer = transformer
        self._pipeline: Any = None

    def edit(self, task: Edit, on_step: OnStep) -> list[Image]:
        """
        Return the pictures, made one after the other.

        Raises:
            EditorMissing: a library or the weights are not here, or no card suits.
        """
        if self._pipeline is None:
            self._pipeline = self._load()
        try:
            return [
                self._picture(task, seed, number, on_step)
                for number, seed in enumerate(task.seeds)
            ]
        finally:  # after a stop, the hooks of an offload hold a model on the card
            self._pipeline.maybe_free_model_hooks()

    def _picture(self, task: Edit, seed: int, number: int, on_step: OnStep) -> Image:
        import torch

        def stepped(
            pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]
        ) -> dict[str, Any]:
            done = number * task.steps + step + 1
            on_step(done, task.count * task.steps, None)
            return tensors

        guided = task.cfg > 1
        made: Image = self._pipeline(
            image=list(task.images),
            prompt=task.prompt,
            # Guidance needs a text to lead away from, if only an empty one.
            negative_prompt=(task.negative_prompt or " ") if guided else None,
            true_cfg_scale=task.cfg,
            width=task.width,
            height=task.height,
            num_inference_steps=task.steps,
            generator=torch.Generator("cpu").manual_seed(seed),
            callback_on_step_end=stepped,
        ).images[0]
        return made.convert("RGB")

    def _load(self) -> Any:
        try:
            import torch
            from diffusers import (
                FlowMatchEulerDiscreteScheduler,
                QwenImageEditPlusPipeline,
            )
        except ImportError as error:
            raise EditorMissing(
                "torch or diffusers is not installed: pip install '.[qwen]'"
            ) from error
        transformer = self._transformer(self._models)
        cuda = torch.cuda.is_available()
        try:
            with weights.pipeline(self._models) as folder:
                pipeline = QwenImageEditPlusPipeline.from_pretrained(
                    str(folder),
                    transformer=transformer,
                    scheduler=FlowMatchEulerDiscreteScheduler.from_config(SCHEDULER),
                    torch_dtype=torch.bfloat16 if cuda else torch.float32,
                    local_files_only=True,
                )
        except OSError as error:
            if error.errno in (None, errno.ENOENT):  # theirs has no number
                raise WeightsMissing(str(error)) from error
            raise
        pipeline.set_progress_bar_config(disable=True)
        if cuda:
            free, _ = torch.cuda.mem_get_info()
            plan = weights.offload(free / 1e9)
            log.info("%.1f GB are free on the card: offload %s", free / 1e9, plan)
            _place(pipeline, transformer, plan)
        return pipeline


def _place(pipeline: Any, transformer: Any, plan: weights.Offload) -> None:
    match plan:
        case "none":
            pipeline.to("cuda")
        case "model":
            pipeline.enable_model_cpu_offload()
        case "layers":
            transformer.set_offload(True, use_pin_memory=False, num_blocks_on_gpu=1)
            # nunchaku moves it by itself; diffusers offers no public way to leave a
            # part out, and nunchaku's example does it like this.
            pipeline._exclude_from_cpu_offload.append("transformer")
            pipeline.enable_sequential_cpu_offload()
