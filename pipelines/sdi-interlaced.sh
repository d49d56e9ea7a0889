#!/bin/sh
# Interlaced SDI: fields are woven into full frames before the model and the overlay see them, so that masks and
# picture belong together.
#
#   pipelines/sdi-interlaced.sh
set -eu
exec gst-launch-1.0 -e \
  ${SOURCE:-decklinkvideosrc mode=1080i50} ! videoconvert ! deinterlace fields=top \
  ! masaminfer model="${MODEL:-weights/demo.safetensors}" mode=live ! masamoverlay name=overlay \
  ! videoconvert ! ${SINK:-autovideosink}
