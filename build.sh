#!/usr/bin/env bash
# Builds images: ./build.sh [TARGET ...] [buildx options]; all of them without a target.
#   ./build.sh wan-cpu
#   ./build.sh wan-wan2_2-14b-loras --push
#   ./build.sh --print
set -euo pipefail
cd "$(dirname "$0")"
set -a
# shellcheck source=docker/versions.env
. docker/versions.env
set +a
exec docker buildx bake --file docker-bake.hcl "$@"
