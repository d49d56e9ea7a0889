#!/bin/sh
# A network camera to the screen, decoded, masked and shown live.
#
#   ADDRESS=rtsp://camera/stream pipelines/rtsp-to-display.sh
set -eu
exec gst-launch-1.0 -e \
  ${SOURCE:-rtspsrc location=$ADDRESS latency=100 ! decodebin} ! queue max-size-buffers=4 ! videoconvert \
  ! masaminfer model="${MODEL:-weights/demo.safetensors}" mode=live ! masamoverlay name=overlay \
  ! videoconvert ! ${SINK:-autovideosink}
