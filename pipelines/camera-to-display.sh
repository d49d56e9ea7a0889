#!/bin/sh
# A camera or capture card to the screen: the picture never waits, the newest mask is laid over it.
#
#   pipelines/camera-to-display.sh
#   SOURCE="decklinkvideosrc mode=1080p30" pipelines/camera-to-display.sh
set -eu
exec gst-launch-1.0 -e \
  ${SOURCE:-v4l2src} ! videoconvert \
  ! masaminfer model="${MODEL:-weights/demo.safetensors}" mode=live ! masamoverlay name=overlay style=both \
  ! videoconvert ! ${SINK:-autovideosink}
