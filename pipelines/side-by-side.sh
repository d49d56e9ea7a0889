#!/bin/sh
# The video without masks on the left and with masks on the right. The overlay comes before the compositor, whose
# output has another size and therefore no masks.
#
#   pipelines/side-by-side.sh input.mp4 both.mp4
set -eu
exec gst-launch-1.0 -e \
  compositor name=mix sink_1::xpos="${WIDTH:-1280}" ! videoconvert ! video/x-raw,format=I420 \
  ! x264enc tune=zerolatency speed-preset=veryfast ! h264parse \
  ! mp4mux fragment-duration=500 fragment-mode=first-moov-then-finalise \
  ! filesink location="$2" buffer-mode=unbuffered o-sync=true \
  filesrc location="$1" ! decodebin ! videoconvert ! tee name=both \
  both. ! queue max-size-buffers=0 max-size-bytes=0 max-size-time=0 ! mix.sink_0 \
  both. ! queue ! masaminfer model="${MODEL:-weights/demo.safetensors}" mode=exact ! masamoverlay name=overlay \
  ! mix.sink_1
