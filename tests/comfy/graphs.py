"""Two workflows: one that needs no model, and one that samples."""


def still(image: str, prefix: str = "video/still") -> dict[str, object]:
    """Return a clip of one frame of an uploaded image; core nodes only, no model."""
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": image}},
        "2": {"class_type": "CreateVideo", "inputs": {"images": ["1", 0], "fps": 8.0}},
        "3": {
            "class_type": "SaveVideo",
            "inputs": {
                "video": ["2", 0],
                "filename_prefix": prefix,
                "format": "mp4",
                "codec": "h264",
            },
        },
    }


def sampled(steps: int = 2, seed: int = 1) -> dict[str, object]:
    """Return FastWan text-to-video, as it was recorded."""
    weights = {
        "unet": "wan2.2_ti2v_5B_fp16.safetensors",
        "clip": "umt5_xxl_fp8_e4m3fn_scaled.safetensors",
        "vae": "wan2.2_vae.safetensors",
    }
    nodes = {
        "37": ("UNETLoader", {"unet_name": weights["unet"], "weight_dtype": "default"}),
        "38": (
            "CLIPLoader",
            {"clip_name": weights["clip"], "type": "wan", "device": "default"},
        ),
        "39": ("VAELoader", {"vae_name": weights["vae"]}),
        "6": ("CLIPTextEncode", {"clip": ["38", 0], "text": "a red fox"}),
        "7": ("CLIPTextEncode", {"clip": ["38", 0], "text": ""}),
        "55": (
            "Wan22ImageToVideoLatent",
            {"vae": ["39", 0], "width": 64, "height": 64, "length": 5, "batch_size": 1},
        ),
        "3": (
            "KSampler",
            {
                "model": ["37", 0],
                "positive": ["6", 0],
                "negative": ["7", 0],
                "latent_image": ["55", 0],
                "seed": seed,
                "steps": steps,
                "cfg": 1.0,
                "sampler_name": "euler",
                "scheduler": "simple",
                "denoise": 1.0,
            },
        ),
        "8": ("VAEDecode", {"samples": ["3", 0], "vae": ["39", 0]}),
        "57": ("CreateVideo", {"images": ["8", 0], "fps": 24.0}),
        "58": (
            "SaveVideo",
            {
                "video": ["57", 0],
                "filename_prefix": f"video/{seed}",
                "format": "mp4",
                "codec": "h264",
            },
        ),
    }
    return {k: {"class_type": c, "inputs": i} for k, (c, i) in nodes.items()}
