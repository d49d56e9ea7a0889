#!/bin/sh
# Masks alone, as fill and key (RGBA) for an external mixer that lays them over its own picture.
#
#   SOURCE="decklinkvideosrc mode=1080p30" SINK="decklinkvideosink mode=1080p30 keyer-mode=external" \
#     pipelines/keyed-masks.sh
set -eu
exec gst-launch-1.0 -e \
  ${SOURCE:-v4l2src} ! videoconvert \
  ! masaminfer model="${MODEL:-weights/demo.safetensors}" mode=live ! masammask name=overlay output=key \
  ! videoconvert ! ${SINK:-autovideosink}
