# All images: ./build.sh, which gives the versions of docker/versions.env.
#
# A target is called as its image, with "_" for each dot, which bake does not allow.

variable "WAN_REGISTRY" { default = "localhost" }
variable "WAN_VERSION" { default = "latest" }
variable "WAN_REVISION" { default = "" }
variable "WAN_SOURCE" { default = "" }

variable "UBUNTU_IMAGE" {}
variable "CUDA_IMAGE" {}
variable "CUDA_BUILD_IMAGE" {}
variable "TAILSCALE_IMAGE" {}
variable "COMFYUI_REPOSITORY" {}
variable "COMFYUI_VERSION" {}
variable "COMFYUI_COMMIT" {}
variable "NUNCHAKU_WHEEL" {}

group "default" {
  targets = ["wan-cpu", "services", "wan-fastwan2_2-5b-packed", "wan-qwen-image-edit-nunchaku"]
}

target "_common" {
  context    = "."
  dockerfile = "common/Dockerfile"
  platforms  = ["linux/amd64"]
  args = {
    CUDA_BUILD_IMAGE   = CUDA_BUILD_IMAGE
    TAILSCALE_IMAGE    = TAILSCALE_IMAGE
    COMFYUI_REPOSITORY = COMFYUI_REPOSITORY
    COMFYUI_COMMIT     = COMFYUI_COMMIT
  }
}

# What is published says where it is from. What is in it, the workflow has attested:
# Docker's own builder would refuse to (`--sbom=true --push` asks another one for it).
target "_published" {
  platforms = ["linux/amd64"]
  labels = {
    "org.opencontainers.image.version"  = WAN_VERSION
    "org.opencontainers.image.revision" = WAN_REVISION
    "org.opencontainers.image.source"   = WAN_SOURCE
    "org.opencontainers.image.licenses" = "MIT"
  }
}

# ---- What images begin with; not published.

target "gpu" {
  inherits = ["_common"]
  target   = "gpu"
  args     = { BASE_IMAGE = CUDA_IMAGE }
}

target "gpu-system" {
  inherits = ["_common"]
  target   = "system"
  args     = { BASE_IMAGE = CUDA_IMAGE }
}

target "gpu-packages" {
  inherits = ["_common"]
  target   = "worker"
  args     = { BASE_IMAGE = CUDA_IMAGE }
}

# ---- Images.

target "wan-cpu" {
  inherits = ["_common", "_published"]
  target   = "cpu"
  args     = { BASE_IMAGE = UBUNTU_IMAGE }
  tags     = ["${WAN_REGISTRY}/wan-cpu:${WAN_VERSION}"]
}

# Their weights arrive on a volume.
target "services" {
  name = "wan-${replace(service, ".", "_")}"
  matrix = {
    service = ["fastwan2.2-5b-network-storage", "infinite-talk-v1", "wan2.2-14b-loras"]
  }
  inherits   = ["_published"]
  context    = "."
  dockerfile = "${service}/Dockerfile"
  contexts   = { base = "target:gpu" }
  labels     = { "io.github.comfyui.version" = COMFYUI_VERSION }
  tags       = ["${WAN_REGISTRY}/wan-${service}:${WAN_VERSION}"]
}

# A token for weights that ask for one: HF_TOKEN=… ./build.sh wan-fastwan2_2-5b-packed
target "wan-fastwan2_2-5b-packed" {
  inherits   = ["_published"]
  context    = "."
  dockerfile = "fastwan2.2-5b-packed/Dockerfile"
  contexts   = { base = "target:wan-fastwan2_2-5b-network-storage" }
  secret     = ["id=hf_token,env=HF_TOKEN"]
  labels     = { "io.github.comfyui.version" = COMFYUI_VERSION }
  tags       = ["${WAN_REGISTRY}/wan-fastwan2.2-5b-packed:${WAN_VERSION}"]
}

target "wan-qwen-image-edit-nunchaku" {
  inherits   = ["_published"]
  context    = "."
  dockerfile = "qwen-image-edit-nunchaku/Dockerfile"
  contexts = {
    system   = "target:gpu-system"
    packages = "target:gpu-packages"
  }
  args = { NUNCHAKU_WHEEL = NUNCHAKU_WHEEL }
  tags = ["${WAN_REGISTRY}/wan-qwen-image-edit-nunchaku:${WAN_VERSION}"]
}
