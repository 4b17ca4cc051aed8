#!/bin/sh
# Lets type checkers and `PYTHONPATH=.links` see the checkout's folders as the namespace diffusion_xray.
set -eu
mkdir -p .links/diffusion_xray
for folder in tracer viewer pipelines; do ln -sfn "../../$folder" ".links/diffusion_xray/$folder"; done
