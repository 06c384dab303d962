#!/usr/bin/env bash
# Builds from nothing: as build.sh, without any layer of an earlier build.
exec "$(dirname "$0")/build.sh" --no-cache --pull "$@"
