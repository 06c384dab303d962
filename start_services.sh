#!/bin/sh
# A container's start, for platforms that want a script to run; `wan container --help`.
exec wan container "$@"
