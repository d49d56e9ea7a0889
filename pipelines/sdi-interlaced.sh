#!/bin/sh
# Interlaced SDI: the top field of each frame, its missing rows interpolated, is what the model and the overlay see,
# so that masks and picture show the same moment.
#
#   pipelines/sdi-interlaced.sh
set -eu
exec gst-launch-1.0 -e \
  ${SOURCE:-decklinkvideosrc mode=1080i50} ! videoconvert ! deinterlace fields=top \
  ! masaminfer model="${MODEL:-weights/demo.safetensors}" mode=live ! masamoverlay name=overlay \
  ! videoconvert ! ${SINK:-autovideosink}
